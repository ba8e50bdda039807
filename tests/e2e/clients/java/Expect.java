import java.time.Duration;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

/** What checks expect; whatever is otherwise is said in one line with what was seen. */
final class Expect {
    private static final Duration PATIENCE = Duration.ofSeconds(30);

    private Expect() { }

    static void equal(String what, Object expected, Object seen) {
        if (!Objects.equals(expected, seen)) {
            throw new Checks.Broken(what + ": expected " + shown(expected) + ", seen " + shown(seen));
        }
    }

    static void that(String what, boolean holds, Object seen) {
        if (!holds) {
            throw new Checks.Broken(what + ": seen " + shown(seen));
        }
    }

    /** The answer of a call to the broker, which must come soon. */
    static <T> T got(Future<T> future) throws Exception {
        try {
            return future.get(PATIENCE.toSeconds(), TimeUnit.SECONDS);
        } catch (ExecutionException failed) {
            throw failed.getCause() instanceof Exception cause ? cause : failed;
        }
    }

    /** The failure that an action must end with: of exactly this class, as itself or as the cause of a wrapper. */
    static <E extends Throwable> E failure(String what, Class<E> expected, Callable<?> action) {
        return expected.cast(failure(what, List.of(expected), action));
    }

    /** The failure that an action must end with, where it depends on the moment which of some it is. */
    static Throwable failure(String what, List<Class<? extends Throwable>> expected, Callable<?> action) {
        Object result;
        try {
            Object answer = action.call();
            result = answer instanceof Future<?> future ? got(future) : answer;
        } catch (Throwable thrown) {
            Throwable seen = thrown;
            while (seen.getCause() != null && !expected.contains(seen.getClass()) && wraps(seen)) {
                seen = seen.getCause();
            }
            if (!expected.contains(seen.getClass())) {
                throw new Checks.Broken(what + ": expected " + names(expected) + ", seen " + seen);
            }
            return seen;
        }
        throw new Checks.Broken(what + ": expected " + names(expected) + ", but it succeeded with " + shown(result));
    }

    private static String names(List<Class<? extends Throwable>> classes) {
        return String.join(" or ", classes.stream().map(Class::getSimpleName).toList());
    }

    /** Waits until a question is answered with true, asking again and again; fails when patience is over, with the state then. */
    static void until(String what, Callable<Boolean> question, Callable<?> state) throws Exception {
        long end = System.nanoTime() + PATIENCE.toNanos();
        while (!question.call()) {
            if (System.nanoTime() > end) {
                throw new Checks.Broken(what + ": not within " + PATIENCE.toSeconds() + " s, seen " + shown(state.call()));
            }
            Thread.sleep(20);
        }
    }

    private static boolean wraps(Throwable thrown) {
        return thrown instanceof ExecutionException || thrown instanceof CompletionException
            || thrown.getClass() == org.apache.kafka.common.KafkaException.class;
    }

    private static String shown(Object value) {
        String text = String.valueOf(value);
        return text.length() > 600 ? text.substring(0, 600) + "…" : text;
    }
}
