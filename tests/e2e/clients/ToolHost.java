// Runs the main methods of Apache Kafka's command-line tools one after another in one JVM, so that none costs a start.
// Started by tools_host.py.
//
// A request is a line of fields separated by \u001f: the standard input in base64, the class, its arguments. The answer is a line: the
// exit status, then standard output and standard error in base64, separated by spaces.

import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import org.apache.kafka.common.utils.Exit;

public final class ToolHost {
    /** What ends a tool that asks for the end of the process. */
    private static final class Ended extends Error {}

    /** The first status a tool asked to end with; later ones come from handlers that catch everything. */
    private static volatile Integer status;

    private static void end(int wanted, String message) {
        if (status == null) {
            status = wanted;
        }
        throw new Ended();
    }

    /** What tools would do at the end of the process, such as closing their clients. */
    private static final List<Runnable> HOOKS = new CopyOnWriteArrayList<>();

    private static int run(String name, String[] arguments) throws ReflectiveOperationException {
        status = null;
        try {
            Class.forName(name).getMethod("main", String[].class).invoke(null, (Object) arguments);
        } catch (InvocationTargetException thrown) {
            if (!(thrown.getCause() instanceof Ended)) {
                thrown.getCause().printStackTrace();
                return 1;
            }
        } finally {
            HOOKS.forEach(Runnable::run);
            HOOKS.clear();
        }
        return status == null ? 0 : status;
    }

    public static void main(String[] unused) throws Exception {
        PrintStream answers = System.out;
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in));
        Exit.setExitProcedure(ToolHost::end);
        Exit.setHaltProcedure(ToolHost::end);
        Exit.setShutdownHookAdder((name, hook) -> HOOKS.add(hook));
        for (String line = requests.readLine(); line != null; line = requests.readLine()) {
            String[] fields = line.split("\u001f", -1);
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            ByteArrayOutputStream err = new ByteArrayOutputStream();
            System.setIn(new ByteArrayInputStream(Base64.getDecoder().decode(fields[0])));
            System.setOut(new PrintStream(out, true));
            System.setErr(new PrintStream(err, true));
            int ended = run(fields[1], Arrays.copyOfRange(fields, 2, fields.length));
            System.out.flush();
            Base64.Encoder base64 = Base64.getEncoder();
            answers.println(ended + " " + base64.encodeToString(out.toByteArray()) + " " + base64.encodeToString(err.toByteArray()));
            answers.flush();
        }
        Runtime.getRuntime().halt(0); // Whatever threads the tools have left behind.
    }
}
