package example;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;

/** A back end with one address, {@code /ask?question=…}, that is answered by Danlu. */
@SpringBootApplication
@RestController
public class Application {
    private final Danlu danlu = new Danlu();

    public static void main(String[] args) {
        SpringApplication.run(Application.class, args);
    }

    @GetMapping("/ask")
    public String ask(@RequestParam String question) throws Exception {
        // The third argument gets the pieces as they come; send them on to your own front end from there.
        return danlu.ask(question, 200, piece -> { }).get();
    }
}
