import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.wire.message.MongoMessage;
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

/**
 * MongoMain PORT FILE TLS_PORT CERTIFICATE KEY: a server of MongoDB's protocol on 127.0.0.1:PORT that keeps its data in FILE. On
 * TLS_PORT it is the same behind TLS, with the certificate and its elliptic-curve key from files in PEM.
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
        Durable(String file) {
            super(file);
        }

        @Override
        public Document handleMessage(MongoMessage message) {
            Document answer = super.handleMessage(message);
            commit();
            return answer;
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
