/* A pod in C, with nothing but POSIX.
 *
 *     cc -o pod pod.c -pthread
 *     pod [pod] --workspace DIR --pod NAME [--session UUID | --profile P] [--ticket-role R]
 *
 * It keeps the handshake (spawn/HANDSHAKE.md); main() has the order in which things happen.
 * Its methods are shutdown, and run, which takes three seconds in place of real work.
 */
#define _XOPEN_SOURCE 700
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MAX_LINE = 4 << 20, MAX_DEPTH = 100 }; /* of what a client sends: in bytes, in objects and arrays */
enum { WORKSPACE, POD, SESSION, PROFILE, TICKET_ROLE, FLAGS };
static const char *flags[] = {"--workspace", "--pod", "--session", "--profile", "--ticket-role"}, *values[FLAGS];
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static char directory[sizeof address.sun_path];
static int is_ours; /* the directory has our files */
static int stop_status;

static const char *in_directory(char path[PATH_MAX], const char *name) {
    snprintf(path, PATH_MAX, "%s/%s", directory, name);
    return path;
}

/* Ends a start. Its log stays. */
static _Noreturn void fail(int status, const char *what, const char *why) {
    static const char *made[] = {"pid", "pid.tmp", "status.json", "status.json.tmp", "sock"};
    char path[PATH_MAX];
    dprintf(2, "pod: %s: %s\n", what, why);
    for (int i = 0; is_ours && i < 5; i++) unlink(in_directory(path, made[i]));
    _exit(status);
}

static void check(int ok, const char *what) {
    if (!ok) fail(1, what, strerror(errno));
}

static void parse_args(char **arg) {
    if (*arg && !strcmp(*arg, "pod")) arg++;
    for (; *arg; arg += 2) {
        int i = 0;
        while (i < FLAGS && strcmp(*arg, flags[i])) i++;
        if (i == FLAGS || !arg[1]) fail(2, *arg, "unknown flag, or one without a value");
        values[i] = arg[1];
    }
    if (!values[WORKSPACE] || !values[POD]) fail(2, "--workspace and --pod", "both are needed");
    if (values[SESSION] && values[PROFILE]) fail(2, "--profile", "not with --session");
    const char *name = values[POD];
    int is_element = *name && strcmp(name, ".") && strcmp(name, "..") && !strpbrk(name, "/\t\r\n");
    if (!is_element) fail(2, "--pod", "must be one path element, without a tab or a line end");
}

static void make_directory(void) {
    static const char *places[][2] = {
        {"YOI_RUNTIME_DIR", ""},
        {"YOI_HOME", "/run"},
        {"XDG_RUNTIME_DIR", "/yoi"},
        {"HOME", "/.yoi/run"},
    };
    char here[PATH_MAX] = "", path[2 * PATH_MAX] = "";
    for (int i = 0; i < 4 && !*path; i++) {
        const char *base = getenv(places[i][0]);
        if (!base || !*base) continue; /* an empty one counts as unset */
        if (*base != '/') check(getcwd(here, sizeof here - 1) && strcat(here, "/"), "working directory");
        snprintf(path, sizeof path, "%s%s%s/%s", here, base, places[i][1], values[POD]);
    }
    if (!*path) fail(1, "no runtime directory", "set YOI_HOME, YOI_RUNTIME_DIR, XDG_RUNTIME_DIR, or HOME");
    if (strlen(path) + sizeof "/sock" > sizeof address.sun_path) fail(1, path, "too long for a socket in it");
    strcpy(directory, path);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/sock", path);
    for (char *end = directory; (end = strchr(end + 1, '/')); *end = '/') *end = 0, mkdir(directory, 0700);
    check(!mkdir(directory, 0700) || errno == EEXIST, directory); /* a client has made it: the log is there */
}

static void write_atomically(const char *name, const char *format) {
    char path[PATH_MAX], temporary[PATH_MAX], text[100];
    int length = snprintf(text, sizeof text, format, (int)getpid());
    in_directory(path, name);
    snprintf(temporary, sizeof temporary, "%s/%s.tmp", directory, name);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    check(fd >= 0 && write(fd, text, length) == length && !close(fd) && !rename(temporary, path), path);
}

/* C has no JSON. Each skip function returns what follows its part of a text, or NULL where the text is wrong. */

static const char *skip_blanks(const char *s) { return s + strspn(s, " \t\r\n"); }

static const char *skip_digits(const char *s) {
    size_t n = strspn(s, "0123456789");
    return n ? s + n : NULL;
}

static const char *skip_number(const char *s) {
    s += *s == '-';
    s = *s == '0' ? s + 1 : skip_digits(s);
    if (s && *s == '.') s = skip_digits(s + 1);
    if (s && (*s == 'e' || *s == 'E')) s = skip_digits(s + 1 + (s[1] == '+' || s[1] == '-'));
    return s;
}

static const char *skip_utf8(const char *s) {
    unsigned char a = s[0], b = a ? s[1] : 0;
    int length = a < 0x80 ? 1 : a < 0xc2 ? 0 : a < 0xe0 ? 2 : a < 0xf0 ? 3 : a < 0xf5 ? 4 : 0;
    int is_overlong = (a == 0xe0 && b < 0xa0) || (a == 0xf0 && b < 0x90);
    int is_no_character = (a == 0xed && b > 0x9f) || (a == 0xf4 && b > 0x8f);
    for (int i = 1; i < length; i++)
        if ((s[i] & 0xc0) != 0x80) return NULL;
    return length && !is_overlong && !is_no_character ? s + length : NULL;
}

static const char *skip_string(const char *s) {
    if (*s++ != '"') return NULL;
    while (s && *s != '"') {
        if (*s != '\\') s = (unsigned char)*s < ' ' ? NULL : skip_utf8(s);
        else if (s[1] == 'u') s = strspn(s + 2, "0123456789abcdefABCDEF") < 4 ? NULL : s + 6;
        else s = s[1] && strchr("\"\\/bfnrt", s[1]) ? s + 2 : NULL;
    }
    return s ? s + 1 : NULL;
}

/* Reports whether a string, which is right, means a word of letters. */
static int means(const char *s, const char *word) {
    for (s++; *s != '"'; word++) {
        unsigned c = *s;
        if (strncmp(s, "\\u", 2)) s++;
        else sscanf(s + 2, "%4x", &c), s += 6;
        if (!*word || c != (unsigned)*word) return 0;
    }
    return !*word;
}

/* Skips a value. Of an object it finds the method, unless method is NULL. */
static const char *skip_value(const char *s, const char **method, int depth) {
    char end = *s == '{' ? '}' : ']';
    if (*s == '"') return skip_string(s);
    if (!strncmp(s, "true", 4) || !strncmp(s, "null", 4)) return s + 4;
    if (!strncmp(s, "false", 5)) return s + 5;
    if (*s != '{' && *s != '[') return skip_number(s);
    s = skip_blanks(s + 1);
    if (*s == end) return s + 1;
    for (; depth < MAX_DEPTH; s = skip_blanks(s + 1)) {
        const char *key = s;
        if (end == '}') {
            if (!(s = skip_string(s)) || *(s = skip_blanks(s)) != ':') return NULL;
            s = skip_blanks(s + 1);
            if (method && *s == '"' && means(key, "method")) *method = s;
        }
        if (!(s = skip_value(s, NULL, depth + 1))) return NULL;
        s = skip_blanks(s);
        if (*s == end) return s + 1;
        if (*s != ',') return NULL;
    }
    return NULL;
}

static void send_event(int client, const char *event, const char *data) {
    dprintf(client, "{\"event\":\"%s\",\"data\":{%s}}\n", event, data); /* a client may leave: what it has sent counts */
}

static void answer(int client, const char *line, size_t length) {
    const char *start = skip_blanks(line), *end, *method = "\"\"";
    if (!length) return;
    end = *start == '{' ? skip_value(start, &method, 0) : NULL;
    if (!end || skip_blanks(end) != line + length) {
        send_event(client, "error", "\"message\":\"no JSON object\"");
    } else if (means(method, "shutdown")) {
        kill(getpid(), SIGINT);
    } else if (means(method, "run")) {
        sleep(3);
        send_event(client, "done", "");
    } else {
        send_event(client, "error", "\"message\":\"unknown method\"");
    }
}

/* Serves one client in a thread of its own: whether it is silent or does not read is nobody else's matter. */
static void *serve(void *argument) {
    int client = (int)(intptr_t)argument;
    char snapshot[32], *buffer = malloc(MAX_LINE);
    size_t size = 0;
    snprintf(snapshot, sizeof snapshot, "\"pid\":%d", (int)getpid());
    send_event(client, "snapshot", snapshot);
    for (ssize_t n; buffer && (n = read(client, buffer + size, MAX_LINE - size)) > 0;) {
        char *line = buffer, *unseen = buffer + size, *newline;
        size += n;
        for (; (newline = memchr(unseen, '\n', buffer + size - unseen)); line = unseen = newline + 1) {
            *newline = 0;
            answer(client, line, newline - line);
        }
        size -= line - buffer;
        if (line > buffer) memmove(buffer, line, size);
    }
    if (size == MAX_LINE) send_event(client, "error", "\"message\":\"line too long\"");
    free(buffer);
    close(client);
    return NULL;
}

static void *serve_all(void *argument) {
    for (int listener = (int)(intptr_t)argument;;) {
        pthread_t thread;
        int client = accept(listener, NULL, NULL), error = client < 0 ? errno : 0;
        fcntl(client, F_SETFD, FD_CLOEXEC);
        if (!error) error = pthread_create(&thread, NULL, serve, (void *)(intptr_t)client);
        if (!error) {
            pthread_detach(thread);
            continue;
        }
        dprintf(2, "pod: cannot serve a client: %s\n", strerror(error)); /* the next one may fare better */
        if (client >= 0) close(client);
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    }
    return NULL;
}

static void note_removal(int result, const char *path) {
    if (!result || errno == ENOENT || errno == ENOTEMPTY) return; /* a new pod may have come */
    dprintf(2, "pod: %s: %s\n", path, strerror(errno));
    stop_status = 1;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *at) {
    (void)info, (void)type;
    if (at->level > 0 && strcmp(path, address.sun_path)) note_removal(remove(path), path);
    return 0;
}

/* Removes the directory, the socket last: a new pod of the name may start where none answers. */
static _Noreturn void stop(void) {
    note_removal(nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS), directory);
    note_removal(unlink(address.sun_path), address.sun_path);
    note_removal(rmdir(directory), directory);
    _exit(stop_status);
}

int main(int argc, char **argv) {
    char ready[2 * sizeof address.sun_path + 16];
    sigset_t sigint;
    pthread_t thread;
    int received;
    parse_args(argv + (argc > 0));
    /* SIGINT waits until it is waited for, also where the parent ignores it. */
    sigemptyset(&sigint);
    sigaddset(&sigint, SIGINT);
    check(signal(SIGINT, SIG_DFL) != SIG_ERR && !sigprocmask(SIG_BLOCK, &sigint, NULL), "SIGINT");
    check(signal(SIGPIPE, SIG_IGN) != SIG_ERR, "SIGPIPE"); /* a client may leave at any time */
    mode_t inherited = umask(077); /* what is made here is for its user alone */
    make_directory();
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    check(listener >= 0 && !fcntl(listener, F_SETFD, FD_CLOEXEC), "socket");
    unlink(address.sun_path); /* of a pod that was killed */
    check(!bind(listener, (struct sockaddr *)&address, sizeof address), address.sun_path);
    is_ours = 1;
    check(!listen(listener, SOMAXCONN), address.sun_path);
    write_atomically("pid", "%d\n");
    write_atomically("status.json", "{\"pid\":%d,\"state\":\"running\"}\n");
    umask(inherited);
    errno = pthread_create(&thread, NULL, serve_all, (void *)(intptr_t)listener);
    check(!errno, "thread");
    /* Who reads the ready line may connect, and may stop the pod, at once. One write, with the newline. */
    int length = snprintf(ready, sizeof ready, "YOI-READY\t%s\t%s\n", values[POD], address.sun_path);
    check(write(2, ready, length) == length, "ready line");
    dprintf(2, "pod: %s listening on \"%s\"\n", values[POD], address.sun_path);
    while (sigwait(&sigint, &received)) sleep(1);
    stop();
}
