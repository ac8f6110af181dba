import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.bson.Document;
import io.netty.channel.Channel;
import java.util.List;
import java.util.Set;
import org.h2.mvstore.MVStore;

/** mongo-java-server on 127.0.0.1, its data in one file: java Server PORT FILE. What it has answered to survives kill -9. */
public final class Server {
    private static final Set<String> WRITES = Set.of("insert", "update", "delete", "findandmodify", "createindexes");

    /** Current drivers refuse the version that mongo-java-server gives of itself. */
    private static final MongoVersion VERSION = new MongoVersion() {
        @Override
        public List<Integer> getVersionArray() {
            return List.of(4, 4, 0);
        }

        @Override
        public int getWireVersion() {
            return 9;
        }
    };

    public static void main(String[] arguments) {
        MVStore store = new MVStore.Builder().fileName(arguments[1]).autoCommitDisabled().open();
        H2Backend backend = new H2Backend(store) {
            @Override
            public Document handleCommand(Channel channel, String database, String command, Document query) {
                if (!WRITES.contains(command.toLowerCase())) {
                    return super.handleCommand(channel, database, command, query);
                }
                // One at a time: a commit takes what other writes have done so far, and half a write is a broken index.
                synchronized (store) {
                    Document answer = super.handleCommand(channel, database, command, query);
                    commit();
                    return answer;
                }
            }
        };
        backend.version(VERSION);
        MongoServer server = new MongoServer(backend);
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow));
        server.bind("127.0.0.1", Integer.parseInt(arguments[0]));
    }
}
