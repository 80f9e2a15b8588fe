import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.wire.message.MongoMessage;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.PrivateKey;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.List;
import java.util.Set;

/**
 * MongoMain PORT FILE TLS_PORT CERTIFICATE KEY: a server of MongoDB's protocol on 127.0.0.1:PORT that keeps its data in FILE. On
 * TLS_PORT it is the same behind TLS, with the certificate and its elliptic-curve key from files in PEM. While there is a file
 * `answer` in its folder, every write is answered with the error whose code stands in it.
 */
public final class MongoMain {
    /** The library says 8, which today's drivers refuse. */
    private static final MongoVersion FIVE = new MongoVersion() {
        @Override
        public List<Integer> getVersionArray() {
            return List.of(5, 0, 0);
        }

        @Override
        public int getWireVersion() {
            return 13;
        }
    };

    /** Writes to the file before it answers, so that a killed server has what it acknowledged. */
    private static final class Durable extends H2Backend {
        private static final Set<String> WRITES = Set.of("insert", "update", "delete", "findAndModify");

        Durable(String file) {
            super(file);
        }

        @Override
        public Document handleMessage(MongoMessage message) {
            Document refusal = refusal(message.getDocument());
            if (refusal != null) {
                return refusal;
            }
            Document answer = super.handleMessage(message);
            commit();
            return answer;
        }

        /** What a command is refused with, if it is one that writes and the test wants that. */
        private static Document refusal(Document command) {
            Path file = Path.of("answer");
            if (!WRITES.contains(command.keySet().iterator().next()) || !Files.exists(file)) {
                return null;
            }
            try {
                int code = Integer.parseInt(Files.readString(file).trim());
                return new Document("ok", 0.0).append("code", code).append("errmsg", "refused");
            } catch (IOException | NumberFormatException gone) {
                return null;
            }
        }
    }

    private static PrivateKey key(String file) throws Exception {
        String text = Files.readString(Path.of(file)).replaceAll("-----[A-Z ]+-----", "");
        byte[] bytes = Base64.getMimeDecoder().decode(text);
        return KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(bytes));
    }

    private static X509Certificate certificate(String file) throws Exception {
        try (InputStream bytes = Files.newInputStream(Path.of(file))) {
            return (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(bytes);
        }
    }

    public static void main(String[] arguments) throws Exception {
        Durable backend = new Durable(arguments[1]);
        backend.version(FIVE);
        MongoServer server = new MongoServer(backend);
        server.bind("127.0.0.1", Integer.parseInt(arguments[0]));
        MongoServer secure = new MongoServer(backend);
        secure.enableSsl(key(arguments[4]), null, certificate(arguments[3]));
        secure.bind("127.0.0.1", Integer.parseInt(arguments[2]));
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow));
        Thread.currentThread().join();
    }
}
