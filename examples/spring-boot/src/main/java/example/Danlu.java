package example;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.URI;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Consumer;
import org.springframework.web.socket.CloseStatus;
import org.springframework.web.socket.TextMessage;
import org.springframework.web.socket.WebSocketHttpHeaders;
import org.springframework.web.socket.WebSocketSession;
import org.springframework.web.socket.client.standard.StandardWebSocketClient;
import org.springframework.web.socket.handler.TextWebSocketHandler;

/**
 * One connection to Danlu's {@code /ws/answers}, opened at the first question and again when it has ended.
 * DANLU_URL and DANLU_API_KEY come from the environment.
 */
public class Danlu extends TextWebSocketHandler {
    private final ObjectMapper json = new ObjectMapper();
    private final Map<String, Asked> waiting = new ConcurrentHashMap<>();
    private WebSocketSession session;

    private record Asked(Consumer<String> onText, CompletableFuture<String> answer) { }

    /** Ask; {@code onText} gets each piece, the future the whole answer. */
    public CompletableFuture<String> ask(String question, int maxTokens, Consumer<String> onText) throws Exception {
        String id = UUID.randomUUID().toString();
        CompletableFuture<String> answer = new CompletableFuture<>();
        waiting.put(id, new Asked(onText, answer));
        send(Map.of("type", "ask", "id", id, "prompt", question, "max_tokens", maxTokens));
        return answer;
    }

    private synchronized void send(Map<String, Object> message) throws Exception {
        if (session == null || !session.isOpen()) {
            String url = System.getenv().getOrDefault("DANLU_URL", "http://127.0.0.1:8000");
            WebSocketHttpHeaders headers = new WebSocketHttpHeaders();
            String key = System.getenv("DANLU_API_KEY");
            if (key != null) {
                headers.setBearerAuth(key);
            }
            URI address = URI.create(url.replaceFirst("^http", "ws") + "/ws/answers");
            session = new StandardWebSocketClient().execute(this, headers, address).get();
        }
        session.sendMessage(new TextMessage(json.writeValueAsString(message)));
    }

    @Override
    protected void handleTextMessage(WebSocketSession from, TextMessage message) throws IOException {
        JsonNode event = json.readTree(message.getPayload());
        String id = event.path("id").asText();
        Asked asked = waiting.get(id);
        if (asked == null) {
            return;
        }
        switch (event.path("type").asText()) {
            case "text" -> asked.onText().accept(event.path("content").asText());
            case "done" -> waiting.remove(id).answer().complete(event.path("content").asText());
            case "error" -> waiting.remove(id).answer()
                .completeExceptionally(new IOException(event.path("error").path("message").asText()));
            case "stopped" -> waiting.remove(id).answer().cancel(false);
            default -> { }  // queued, started
        }
    }

    @Override
    public void afterConnectionClosed(WebSocketSession from, CloseStatus status) {
        waiting.values().forEach(asked -> asked.answer().completeExceptionally(new IOException("connection ended")));
        waiting.clear();
    }
}
