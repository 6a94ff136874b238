// Stores the keys of standard input, a line each, in the servers given, with spymemcached.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import net.spy.memcached.ConnectionFactory;
import net.spy.memcached.DefaultConnectionFactory;
import net.spy.memcached.DefaultHashAlgorithm;
import net.spy.memcached.KetamaConnectionFactory;
import net.spy.memcached.KetamaNodeLocator;
import net.spy.memcached.MemcachedClient;
import net.spy.memcached.MemcachedNode;
import net.spy.memcached.NodeLocator;
import net.spy.memcached.util.DefaultKetamaNodeLocatorConfiguration;
import net.spy.memcached.KetamaNodeKeyFormatter;

public class Spy {
    public static void main(String[] args) throws Exception {
        List<InetSocketAddress> servers = new ArrayList<>();
        Map<InetSocketAddress, Integer> weights = new HashMap<>();
        boolean weighted = false;
        for (int index = 1; index < args.length; index++) {
            String[] parts = args[index].split(":");
            InetSocketAddress server = new InetSocketAddress(parts[0], Integer.parseInt(parts[1]));
            servers.add(server);
            weights.put(server, Integer.parseInt(parts[2]));
            weighted |= !parts[2].equals("1");
        }
        MemcachedClient client = new MemcachedClient(factory(args[0], weighted ? weights : new HashMap<>()), servers);
        BufferedReader keys = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String key = keys.readLine(); key != null; key = keys.readLine()) {
            if (!client.set(key, 0, "x").get()) {
                throw new IllegalStateException("cannot store " + key);
            }
        }
        client.shutdown();
    }

    static ConnectionFactory factory(String mode, Map<InetSocketAddress, Integer> weights) {
        switch (mode) {
            case "array":
                return new DefaultConnectionFactory();
            case "evcache":
                return new KetamaConnectionFactory() {
                    @Override
                    public NodeLocator createLocator(List<MemcachedNode> nodes) {
                        return new KetamaNodeLocator(nodes, DefaultHashAlgorithm.KETAMA_HASH, new EvCacheLabels());
                    }
                };
            default:
                return new KetamaConnectionFactory(
                    DefaultConnectionFactory.DEFAULT_OP_QUEUE_LEN,
                    DefaultConnectionFactory.DEFAULT_READ_BUFFER_SIZE,
                    DefaultConnectionFactory.DEFAULT_OP_QUEUE_MAX_BLOCK_TIME,
                    DefaultHashAlgorithm.KETAMA_HASH,
                    KetamaNodeKeyFormatter.Format.SPYMEMCACHED,
                    weights);
        }
    }

    /** EVCache is spymemcached with labels of its own: `host/ip:11211`, whatever the port. */
    static final class EvCacheLabels extends DefaultKetamaNodeLocatorConfiguration {
        @Override
        public String getKeyForNode(MemcachedNode node, int repetition) {
            String ip = ((InetSocketAddress) node.getSocketAddress()).getAddress().getHostAddress();
            return ip + '/' + ip + ":11211-" + repetition;
        }
    }
}
