// A pod in Java 17 or newer, with nothing but its library.
//
//     java Pod.java [pod] --workspace DIR --pod NAME [--session UUID | --profile P] [--ticket-role R]
//
// It is ready in a fifth of the time after javac -d DIR Pod.java, as java -cp DIR Pod.
// It keeps the handshake (spawn/HANDSHAKE.md); main() has the order in which things happen.
// Its methods are shutdown, and run, which takes three seconds in place of real work.
// Java decodes names and directories by the locale, and one that it cannot decode is refused:
// started by env LC_ALL=C.UTF-8 java, it takes all that are UTF-8.

import java.io.*;
import java.net.*;
import java.nio.ByteBuffer;
import java.nio.channels.*;
import java.nio.charset.*;
import java.nio.file.*;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.*;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.locks.LockSupport;
import java.util.regex.*;
import sun.misc.Signal;

public class Pod {
    static final List<String> FLAGS = List.of("--workspace", "--pod", "--session", "--profile", "--ticket-role");
    static final int MAX_LINE = 4 << 20; // bytes of a client's line
    static final int MAX_DEPTH = 100; // of the objects and arrays in it
    static final int MAX_PATH = System.getProperty("os.name").equals("Linux") ? 107 : 103; // bytes of a socket's path
    static final Charset NAMES = Charset.forName(System.getProperty("sun.jnu.encoding"));
    static final FileOutputStream STDERR = new FileOutputStream(FileDescriptor.err); // it has no buffer
    static final long PID = ProcessHandle.current().pid();

    static void log(String text) {
        try {
            STDERR.write(("pod: " + text + "\n").getBytes(NAMES));
        } catch (IOException full) { // ends nothing
        }
    }

    static void fail(int status, String why) {
        log(why);
        Runtime.getRuntime().halt(status);
    }

    /** Says all of an error: a class that cannot be loaded has its reason only as a cause. */
    static String withCauses(Throwable error) {
        return error.getCause() == null ? error.toString() : error + ": " + withCauses(error.getCause());
    }

    static String parseArgs(List<String> words) {
        if (!words.isEmpty() && words.get(0).equals("pod")) words = words.subList(1, words.size());
        Map<String, String> values = new HashMap<>();
        for (int i = 0; i < words.size(); i += 2) {
            String flag = words.get(i);
            if (!FLAGS.contains(flag) || i + 1 == words.size()) fail(2, flag + ": unknown flag, or one without a value");
            values.put(flag, words.get(i + 1));
        }
        String name = values.get("--pod");
        if (name == null || !values.containsKey("--workspace")) fail(2, "--workspace and --pod are needed");
        if (values.containsKey("--session") && values.containsKey("--profile")) fail(2, "--profile does not go with --session");
        if (Set.of("", ".", "..").contains(name) || Pattern.compile("[/\t\r\n]").matcher(name).find())
            fail(2, "--pod must be one path element, without a tab or a line end");
        return name;
    }

    static Path podDirectory(String name) {
        String[][] places = {{"YOI_RUNTIME_DIR", ""}, {"YOI_HOME", "run"}, {"XDG_RUNTIME_DIR", "yoi"}, {"HOME", ".yoi/run"}};
        for (String[] place : places) {
            String base = System.getenv(place[0]);
            if (base == null || base.isEmpty()) continue; // an empty one counts as unset
            for (String text : List.of(base, name))
                if (text.contains("\ufffd")) fail(2, text + ": not in the locale's encoding, which is " + NAMES);
            return Path.of(base, place[1], name).toAbsolutePath();
        }
        fail(1, "no runtime directory (set YOI_HOME, YOI_RUNTIME_DIR, XDG_RUNTIME_DIR, or HOME)");
        return null;
    }

    /** Lets nobody else in: Java cannot set the umask. */
    static void permit(Path path, String permissions) throws IOException {
        Files.setPosixFilePermissions(path, PosixFilePermissions.fromString(permissions));
    }

    static void makeDirectory(Path directory) throws IOException {
        if (Files.isDirectory(directory)) return; // a client has made it: the log is there
        makeDirectory(directory.getParent());
        Files.createDirectory(directory);
        permit(directory, "rwx------");
    }

    static void writeAtomically(Path path, String text) throws IOException {
        Path temporary = Path.of(path + ".tmp");
        Files.writeString(temporary, text);
        permit(temporary, "rw-------");
        Files.move(temporary, path, StandardCopyOption.ATOMIC_MOVE);
    }

    static void remove(Path path) throws IOException {
        if (Files.isDirectory(path, LinkOption.NOFOLLOW_LINKS))
            try (DirectoryStream<Path> entries = Files.newDirectoryStream(path)) {
                for (Path entry : entries) remove(entry);
            }
        Files.deleteIfExists(path);
    }

    /** Removes a directory, its socket last: a new pod of the name may start where none answers. */
    static void removeDirectory(Path directory, Path socket) throws IOException {
        try (DirectoryStream<Path> entries = Files.newDirectoryStream(directory, entry -> !entry.equals(socket))) {
            for (Path entry : entries) remove(entry);
            Files.deleteIfExists(socket);
            Files.deleteIfExists(directory);
        } catch (NoSuchFileException | DirectoryNotEmptyException done) {
        }
    }

    /** Reads JSON, for which the library has nothing. What is no object and no string becomes null here. */
    static class Json {
        static final Pattern SCALAR = Pattern.compile("true|false|null|-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?");
        final String text;
        int at;

        Json(String text) {
            this.text = text;
        }

        Object document() {
            Object value = value(0);
            peek();
            if (at < text.length()) throw new IllegalArgumentException();
            return value;
        }

        char peek() {
            while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) at++;
            return at < text.length() ? text.charAt(at) : 0;
        }

        void expect(char c) {
            if (peek() != c) throw new IllegalArgumentException();
            at++;
        }

        Object value(int depth) {
            if (depth > MAX_DEPTH) throw new IllegalArgumentException();
            switch (peek()) {
                case '"':
                    return string();
                case '{':
                    Map<String, Object> object = new HashMap<>();
                    members('}', () -> {
                        String key = string();
                        expect(':');
                        object.put(key, value(depth + 1));
                    });
                    return object;
                case '[':
                    members(']', () -> value(depth + 1));
                    return null;
            }
            Matcher scalar = SCALAR.matcher(text).region(at, text.length());
            if (!scalar.lookingAt()) throw new IllegalArgumentException();
            at = scalar.end();
            return null;
        }

        void members(char end, Runnable member) {
            at++;
            if (peek() != end) member.run();
            while (peek() != end) {
                expect(',');
                member.run();
            }
            at++;
        }

        String string() {
            StringBuilder value = new StringBuilder();
            expect('"');
            for (char c; (c = text.charAt(at++)) != '"'; value.append(c)) {
                if (c < ' ') throw new IllegalArgumentException();
                if (c != '\\') continue;
                c = text.charAt(at++);
                if (c == 'u') c = (char) HexFormat.fromHexDigits(text, at, at += 4);
                else c = "\"\\/\b\f\n\r\t".charAt("\"\\/bfnrt".indexOf(c));
            }
            return value.toString();
        }
    }

    /** Returns the method that a line names, or ""; null if it is no object of JSON. */
    static String readMethod(byte[] line) {
        try {
            String text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(line)).toString();
            if (!(new Json(text).document() instanceof Map<?, ?> request)) return null;
            return request.get("method") instanceof String method ? method : "";
        } catch (CharacterCodingException | RuntimeException wrong) {
            return null;
        }
    }

    static void send(OutputStream client, String event, String data) {
        try {
            client.write(("{\"event\":\"" + event + "\",\"data\":{" + data + "}}\n").getBytes(StandardCharsets.UTF_8));
        } catch (IOException left) { // a client may leave: what it has sent counts
        }
    }

    static void answer(OutputStream client, byte[] line, CountDownLatch stop) throws InterruptedException {
        String method = readMethod(line);
        if (line.length == 0) return;
        if (method == null) {
            send(client, "error", "\"message\":\"no object of JSON\"");
        } else if (method.equals("shutdown")) {
            stop.countDown();
        } else if (method.equals("run")) {
            Thread.sleep(3000);
            send(client, "done", "");
        } else {
            send(client, "error", "\"message\":\"unknown method\"");
        }
    }

    static void serve(SocketChannel channel, CountDownLatch stop) {
        try (channel) {
            OutputStream client = Channels.newOutputStream(channel);
            InputStream input = new BufferedInputStream(Channels.newInputStream(channel));
            ByteArrayOutputStream line = new ByteArrayOutputStream();
            send(client, "snapshot", "\"pid\":" + PID);
            for (int b; (b = input.read()) >= 0 && line.size() < MAX_LINE; ) {
                if (b != '\n') {
                    line.write(b);
                    continue;
                }
                answer(client, line.toByteArray(), stop);
                line.reset();
            }
            if (line.size() == MAX_LINE) send(client, "error", "\"message\":\"the line is too long\"");
        } catch (IOException | InterruptedException left) {
        }
    }

    static void serveAll(ServerSocketChannel listener, CountDownLatch stop) {
        for (;;) {
            try {
                SocketChannel client = listener.accept();
                try {
                    new Thread(() -> serve(client, stop)).start();
                } catch (OutOfMemoryError noThread) {
                    client.close();
                    throw new IOException(noThread);
                }
            } catch (IOException error) { // too many descriptors, or no thread
                log("cannot serve a client: " + error);
                LockSupport.parkNanos(100_000_000);
            }
        }
    }

    static void start(String name, Path directory, Path socket, CountDownLatch stop) throws IOException {
        makeDirectory(directory);
        remove(socket); // of a pod that was killed
        ServerSocketChannel listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
        // Java leaves the last byte of a socket's address unused: a path of full length is taken by a shorter one.
        boolean isFull = socket.toString().getBytes(NAMES).length == MAX_PATH;
        Path bound = isFull ? directory.resolve("s") : socket;
        listener.bind(UnixDomainSocketAddress.of(bound), 128);
        permit(bound, "rw-------");
        if (isFull) Files.move(bound, socket);
        writeAtomically(directory.resolve("pid"), PID + "\n");
        writeAtomically(directory.resolve("status.json"), "{\"pid\":" + PID + ",\"state\":\"running\"}\n");
        new Thread(() -> serveAll(listener, stop)).start();
        // Who reads the line may connect, and may stop the pod, at once. It goes out in one write.
        STDERR.write(("YOI-READY\t" + name + "\t" + socket + "\n").getBytes(NAMES));
    }

    public static void main(String[] argv) throws InterruptedException {
        String name = parseArgs(List.of(argv));
        CountDownLatch stop = new CountDownLatch(1);
        // Not by a shutdown hook: that would run on SIGTERM, too, and end with status 130.
        Signal.handle(new Signal("INT"), signal -> stop.countDown());
        Path directory = podDirectory(name), socket = directory.resolve("sock");
        if (socket.toString().getBytes(NAMES).length > MAX_PATH)
            fail(1, socket + ": too long for a socket, whose path has at most " + MAX_PATH + " bytes");
        try {
            start(name, directory, socket, stop);
        } catch (Throwable error) { // a class may not load, a thread not start
            for (String file : List.of("pid", "pid.tmp", "status.json", "status.json.tmp", "sock")) directory.resolve(file).toFile().delete();
            fail(1, directory + ": " + withCauses(error));
        }
        log(name + " listening on \"" + socket + "\"");
        stop.await();
        try {
            removeDirectory(directory, socket);
        } catch (Throwable error) { // a directory that cannot be read is no IOException
            fail(1, directory + ": " + withCauses(error));
        }
        Runtime.getRuntime().halt(0); // ends all threads
    }
}
