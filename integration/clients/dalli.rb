# Everything that Dalli does, against what MEMCACHED names: a line for each step, its name and what came back.
# USERNAME and PASSWORD log in by SASL.
require "logger"
require "dalli"

# Dalli tells of reconnections on standard output.
Dalli.logger = Logger.new($stderr)

$stdout.sync = true
options = { socket_timeout: 10, socket_max_failures: 0 }
%i[username password].each { |key| options[key] = ENV[key.to_s.upcase] if ENV[key.to_s.upcase] }
CACHE = Dalli::Client.new(ENV.fetch("MEMCACHED"), options)
COMPRESSING = Dalli::Client.new(ENV.fetch("MEMCACHED"), options.merge(compress: true, namespace: "ns"))

def step(name)
  told = begin
    yield
  rescue StandardError => e
    "#{e.class}: #{e.message.gsub(/\d+\.\d+\.\d+\.\d+:\d+/, 'SERVER')}"
  end
  puts "#{name}\t#{told.inspect}"
end

def stored(value) = value ? "stored" : value.inspect

step("flush") { CACHE.flush }
step("get nothing") { CACHE.get("a") }
step("set") { stored(CACHE.set("a", "1")) }
step("get") { CACHE.get("a") }
step("set an object") { stored(CACHE.set("object", { "list" => [1, nil, 2.5], "text" => "é" })) }
step("get an object") { CACHE.get("object") }
step("raw") { stored(CACHE.set("raw", 12, 0, raw: true)) }
step("get raw") { CACHE.get("raw", raw: true) }
step("add over") { stored(CACHE.add("a", "2")) }
step("add") { stored(CACHE.add("b", "2")) }
step("replace nothing") { stored(CACHE.replace("c", "3")) }
step("replace") { stored(CACHE.replace("b", "3")) }
step("append") { CACHE.append("raw", "34") }
step("prepend") { CACHE.prepend("raw", "0") }
step("append to nothing") { CACHE.append("none", "0") }
step("get appended") { CACHE.get("raw", raw: true) }
step("incr nothing") { CACHE.incr("count") }
step("incr with a start") { CACHE.incr("count", 1, 0, 10) }
step("incr") { CACHE.incr("count", 5) }
step("decr") { CACHE.decr("count", 3) }
step("decr below") { CACHE.decr("count", 100) }
step("incr a text") { CACHE.incr("a") }
step("delete") { CACHE.delete("a") }
step("delete nothing") { CACHE.delete("a") }
step("touch") { CACHE.touch("b", 100) }
step("touch nothing") { CACHE.touch("none", 100) }
step("gat") { CACHE.gat("b", 100) }
step("gat nothing") { CACHE.gat("none", 100) }
step("get_cas") { CACHE.get_cas("b").first }
step("set_cas with a token") { stored(CACHE.set_cas("b", "4", CACHE.get_cas("b").last)) }
step("set_cas with another token") { stored(CACHE.set_cas("b", "5", 12_345)) }
step("cas") { stored(CACHE.cas("b") { |value| "#{value}!" }) }
step("cas of nothing") { CACHE.cas("none") { |value| value } }
step("cas!") { stored(CACHE.cas!("made") { |value| value.inspect }) }
step("get what cas made") { [CACHE.get("b"), CACHE.get("made")] }
step("replace_cas") { stored(CACHE.replace_cas("b", "6", CACHE.get_cas("b").last)) }
step("delete_cas with another token") { CACHE.delete_cas("b", 12_345) }
step("delete_cas") { CACHE.delete_cas("b", CACHE.get_cas("b").last) }
keys = (0...100).map { |number| "many#{number}" }
step("set many quietly") { CACHE.multi { keys.each { |key| CACHE.set(key, key * 3) } } }
step("get many") { CACHE.get_multi(*keys, "none").sort.to_h == keys.to_h { |key| [key, key * 3] } }
step("get many with tokens") { CACHE.get_multi_cas(*keys).length }
step("delete many quietly") { CACHE.multi { keys.first(50).each { |key| CACHE.delete(key) } } }
step("what is left") { CACHE.get_multi(*keys).length }
step("fetch") { [CACHE.fetch("fetched") { "computed" }, CACHE.fetch("fetched") { "again" }] }
step("large") { stored(CACHE.set("large", "x" * 900_000)) }
step("get large") { CACHE.get("large")&.length }
step("too large") { stored(CACHE.set("large", "x" * 1_100_000, 0, raw: true)) }
step("compressed") { stored(COMPRESSING.set("zip", "y" * 100_000)) }
step("get compressed") { COMPRESSING.get("zip") == "y" * 100_000 }
step("with a namespace") { [COMPRESSING.get("b"), CACHE.get("ns:zip").nil?] }
step("a long key") { stored(CACHE.set("k" * 400, "long")) }
step("get by a long key") { CACHE.get("k" * 400) }
step("a strange key") { stored(CACHE.set("käse mit leerzeichen", "strange")) }
step("get by a strange key") { CACHE.get("käse mit leerzeichen") }
step("expired") { stored(CACHE.set("short", "1", -1)) }
step("get expired") { CACHE.get("short") }
step("version") { CACHE.version.values.map { |version| version.to_s[0, 2] } }
step("stats") { CACHE.stats.values.map { |stats| stats.key?("curr_items") } }
step("stats items") { CACHE.stats(:items).values.map { |stats| !stats.nil? } }
step("reset_stats") { CACHE.reset_stats.is_a?(Array) }
step("alive!") { CACHE.alive! ? true : false }
step("flush again") { CACHE.flush_all }
step("get after flush") { CACHE.get("large") }
step("close") { CACHE.close }
