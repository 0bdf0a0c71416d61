package taskq.client;

import com.google.gson.Gson;
import com.google.gson.JsonParseException;
import com.google.protobuf.ByteString;
import taskq.v1.Payload;

/** Payloads and results as JSON. */
public final class Payloads {
  private static final Gson JSON = new Gson();

  private Payloads() {}

  public static Payload toJson(Object value) {
    return Payload.newBuilder()
        .setData(ByteString.copyFromUtf8(JSON.toJson(value)))
        .setContentType("application/json")
        .build();
  }

  /** What a payload says. One that cannot be read ends its task: it will not get better. */
  public static <T> T fromJson(Payload payload, Class<T> type) throws Failed {
    try {
      return JSON.fromJson(payload.getData().toStringUtf8(), type);
    } catch (JsonParseException error) {
      throw new Failed("PAYLOAD_UNDECODABLE", error.getMessage(), false);
    }
  }
}
