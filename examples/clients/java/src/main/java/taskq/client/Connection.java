package taskq.client;

import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.MetadataUtils;
import java.io.File;
import java.io.IOException;
import java.util.concurrent.TimeUnit;

/** The way to the server; docs/clients.md tells what a client does and why. */
final class Connection {
  private static final String ADDRESS = setting("TASKQ_ADDRESS", "127.0.0.1:50051");
  private static final String CA = setting("TASKQ_TLS_CA", null);
  private static final String CERT = setting("TASKQ_TLS_CERT", null);
  private static final String KEY = setting("TASKQ_TLS_KEY", null);
  private static final String TOKEN = setting("TASKQ_TOKEN", null);

  private Connection() {}

  private static String setting(String name, String otherwise) {
    String value = System.getenv(name);
    return value == null || value.isBlank() ? otherwise : value;
  }

  /** A connection to TASKQ_ADDRESS, by TLS when TASKQ_TLS_CA names a CA, with TASKQ_TOKEN in every call. */
  static ManagedChannel open() throws IOException {
    if (TOKEN != null && CA == null && !ADDRESS.matches("(127\\.[0-9.]+|localhost|\\[::1\\]):.*")) {
      throw new IOException("a token would go to " + ADDRESS + " in plaintext; must go by TLS: set TASKQ_TLS_CA");
    }
    return Grpc.newChannelBuilder(ADDRESS, CA == null ? InsecureChannelCredentials.create() : tls())
        .maxInboundMessageSize(4 << 20)
        // A half-open connection is found within 30 s. The server hangs up on who pings more often than every 10 s.
        .keepAliveTime(20, TimeUnit.SECONDS)
        .keepAliveTimeout(10, TimeUnit.SECONDS)
        .keepAliveWithoutCalls(true)
        // Calls are repeated here, under the same ids; neither DNS nor gRPC should do it a second time.
        .disableRetry()
        .disableServiceConfigLookUp()
        .intercept(MetadataUtils.newAttachHeadersInterceptor(token()))
        .build();
  }

  /** Trusts TASKQ_TLS_CA, and shows the certificate of TASKQ_TLS_CERT and TASKQ_TLS_KEY, if there is one. */
  private static ChannelCredentials tls() throws IOException {
    TlsChannelCredentials.Builder tls = TlsChannelCredentials.newBuilder().trustManager(new File(CA));
    if ((CERT == null) != (KEY == null)) {
      throw new IOException("TASKQ_TLS_CERT and TASKQ_TLS_KEY must both be set, or neither");
    }
    return CERT == null ? tls.build() : tls.keyManager(new File(CERT), new File(KEY)).build();
  }

  /** What every call shows. */
  private static Metadata token() {
    Metadata shown = new Metadata();
    if (TOKEN != null) {
      shown.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + TOKEN);
    }
    return shown;
  }
}
