<?php
// Everything that PHP's memcached extension does, against what MEMCACHED names: a line for each step, its name and
// what came back. PROTOCOL is "binary" or "classic"; USERNAME and PASSWORD log in by SASL.
[$host, $port] = explode(':', getenv('MEMCACHED'));
$cache = new Memcached();
$cache->setOption(Memcached::OPT_BINARY_PROTOCOL, getenv('PROTOCOL') === 'binary');
$cache->setOption(Memcached::OPT_TCP_NODELAY, true);
if (getenv('USERNAME') !== false) {
    $cache->setSaslAuthData(getenv('USERNAME'), getenv('PASSWORD'));
}
$cache->addServer($host, (int) $port);

function step(string $name, $told): void
{
    global $cache;
    echo $name, "\t", json_encode($told), ' ', $cache->getResultCode(), "\n";
}

function token($cache, string $key)
{
    return $cache->get($key, null, Memcached::GET_EXTENDED)['cas'] ?? 0;
}

step('flush', $cache->flush());
step('get nothing', $cache->get('a'));
step('set', $cache->set('a', 'one'));
step('get', $cache->get('a'));
step('set an array', $cache->set('array', ['list' => [1, null, 2.5], 'text' => 'é']));
step('get an array', $cache->get('array'));
step('add over', $cache->add('a', 'two'));
step('add', $cache->add('b', 'two', 100));
step('replace nothing', $cache->replace('c', 'three'));
step('replace', $cache->replace('b', 'three'));
$cache->setOption(Memcached::OPT_COMPRESSION, false);
step('set for append', $cache->set('b', 'mid'));
step('append', $cache->append('b', '>'));
step('prepend', $cache->prepend('b', '<'));
step('append to nothing', $cache->append('none', 'x'));
step('get appended', $cache->get('b'));
step('increment nothing', $cache->increment('count'));
if (getenv('PROTOCOL') === 'binary') {
    step('increment with a start', $cache->increment('count', 1, 10));
}
step('set a number', $cache->set('number', 5));
step('increment', $cache->increment('number', 3));
step('decrement', $cache->decrement('number', 2));
step('decrement below', $cache->decrement('number', 100));
step('increment a text', $cache->increment('a'));
step('touch', $cache->touch('b', 100));
step('touch nothing', $cache->touch('none', 100));
step('delete', $cache->delete('a'));
step('delete nothing', $cache->delete('a'));
step('cas', $cache->cas(token($cache, 'b'), 'b', 'swapped'));
step('get swapped', $cache->get('b'));
step('cas with another token', $cache->cas(12345.0, 'b', 'wrong'));
step('cas of nothing', $cache->cas(12345.0, 'none', 'wrong'));
$many = [];
for ($number = 0; $number < 100; $number++) {
    $many["many$number"] = str_repeat("v$number", 20);
}
step('set many', $cache->setMulti($many));
step('get many', $cache->getMulti(array_keys($many)) == $many);
step('get many, one missing', count($cache->getMulti(['many1', 'none', 'many2'])));
step('get many in order', array_keys($cache->getMulti(['many7', 'none', 'many3'], Memcached::GET_PRESERVE_ORDER)));
step('delayed', $cache->getDelayed(['many1', 'many2'], true));
$found = array_column($cache->fetchAll() ?: [], 'value', 'key');
ksort($found);
step('fetched', $found);
step('delete many', array_unique($cache->deleteMulti(array_keys($many))));
step('what is left', $cache->getMulti(array_keys($many)));
step('large', $cache->set('large', str_repeat('x', 900000)));
step('get large', strlen((string) $cache->get('large')));
step('too large', $cache->set('large', str_repeat('x', 1100000)));
$cache->setOption(Memcached::OPT_COMPRESSION, true);
step('compressed', $cache->set('zip', str_repeat('y', 100000)));
step('get compressed', $cache->get('zip') === str_repeat('y', 100000));
step('a long key', $cache->set(str_repeat('k', 300), 'long'));
step('a strange key', $cache->set("with space", 'strange'));
$cache->setOption(Memcached::OPT_PREFIX_KEY, 'prefix:');
step('with a prefix', $cache->set('p', 'prefixed'));
step('get with a prefix', $cache->get('p'));
$cache->setOption(Memcached::OPT_PREFIX_KEY, '');
step('get past the prefix', $cache->get('prefix:p'));
step('expired', $cache->set('short', 'x', -1));
step('get expired', $cache->get('short'));
step('versions', array_map(fn ($version) => substr($version, 0, 2), array_values($cache->getVersion() ?: [])));
step('stats', array_map(fn ($stats) => isset($stats['curr_items']), array_values($cache->getStats() ?: [])));
$cache->setOption(Memcached::OPT_NO_BLOCK, true);
$cache->setOption(Memcached::OPT_BUFFER_WRITES, true);
for ($number = 0; $number < 50; $number++) {
    $cache->set("buffered$number", $number);
}
step('buffered', $cache->get('buffered49'));
$cache->setOption(Memcached::OPT_BUFFER_WRITES, false);
if (getenv('PROTOCOL') !== 'binary') {
    $cache->setOption(Memcached::OPT_NOREPLY, true);
    $cache->set('quiet', 'shh');
    $cache->delete('buffered1');
    $cache->setOption(Memcached::OPT_NOREPLY, false);
    step('noreply', [$cache->get('quiet'), $cache->get('buffered1')]);
}
step('flush again', $cache->flush());
step('get after flush', $cache->get('large'));
