/* A pod in C, with nothing but POSIX.
 *
 *     cc -o pod pod.c -pthread
 *     pod [pod] --workspace DIR --pod NAME [--session UUID | --profile P] [--ticket-role R]
 *
 * It keeps the handshake (spawn/HANDSHAKE.md); main() has the order in which things happen.
 */
#define _XOPEN_SOURCE 700
#include <errno.h>
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
#include <unistd.h>

enum { WORKSPACE, POD, SESSION, PROFILE, TICKET_ROLE, FLAGS };
static const char *flags[] = {"--workspace", "--pod", "--session", "--profile", "--ticket-role"}, *values[FLAGS];
static char directory[PATH_MAX];
static int stops[2]; /* a pipe: a byte asks for a stop */

static _Noreturn void fail(int status, const char *what, const char *why) {
    dprintf(2, "pod: %s: %s\n", what, why);
    exit(status);
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
    int is_element = *name && strcmp(name, ".") && strcmp(name, "..") && !strchr(name, '/');
    if (!is_element) fail(2, "--pod", "must be one path element");
}

static void make_directory(void) {
    static const char *places[][2] = {
        {"YOI_RUNTIME_DIR", ""},
        {"YOI_HOME", "/run"},
        {"XDG_RUNTIME_DIR", "/yoi"},
        {"HOME", "/.yoi/run"},
    };
    for (int i = 0; i < 4 && !*directory; i++) {
        const char *base = getenv(places[i][0]);
        if (!base || !*base) continue; /* an empty one counts as unset */
        snprintf(directory, sizeof directory, "%s%s/%s", base, places[i][1], values[POD]);
    }
    if (!*directory) fail(1, "no runtime directory", "set YOI_HOME, YOI_RUNTIME_DIR, XDG_RUNTIME_DIR, or HOME");
    mkdir(directory, 0700); /* a client has made it, and its parents: the log is there */
}

static void write_atomically(const char *name, const char *format) {
    char path[PATH_MAX + 16], temporary[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    snprintf(temporary, sizeof temporary, "%s/%s.tmp", directory, name);
    FILE *f = fopen(temporary, "w");
    check(f && fprintf(f, format, (int)getpid()) > 0 && !fclose(f) && !rename(temporary, path), path);
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *at) {
    return (void)info, (void)type, (void)at, remove(path);
}

static void stop(int signal) {
    if (write(stops[1], "", 1) != 1) _exit(128 + signal); /* a handler may do little more */
}

static void *serve(void *client) {
    int fd = (int)(intptr_t)client;
    FILE *lines = fdopen(fd, "r");
    char *line = NULL, quote[2];
    size_t size = 0;
    check(lines != NULL, "client");
    dprintf(fd, "{\"event\":\"snapshot\",\"data\":{\"pid\":%d}}\n", (int)getpid());
    while (getline(&line, &size, lines) > 0) {
        char *method = strstr(line, "\"method\""); /* who has more methods has a parser */
        if (method && sscanf(method, "\"method\" : \"shutdown%1[\"]", quote) == 1) stop(SIGINT);
        else dprintf(fd, "{\"event\":\"error\",\"data\":{\"message\":\"unknown method\"}}\n");
    }
    free(line);
    fclose(lines);
    return NULL;
}

static void *serve_all(void *listener) {
    for (int client;;) {
        pthread_t thread;
        check((client = accept((int)(intptr_t)listener, NULL, NULL)) >= 0, "accept");
        check(!pthread_create(&thread, NULL, serve, (void *)(intptr_t)client) && !pthread_detach(thread), "thread");
    }
    return NULL;
}

int main(int argc, char **argv) {
    struct sigaction on_sigint = {.sa_handler = stop, .sa_flags = SA_RESTART};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    pthread_t thread;
    parse_args(argv + (argc > 0));
    make_directory();
    write_atomically("pid", "%d\n");
    write_atomically("status.json", "{\"pid\":%d,\"state\":\"running\"}\n");
    int length = snprintf(address.sun_path, sizeof address.sun_path, "%s/sock", directory);
    if (length >= (int)sizeof address.sun_path) fail(1, directory, "too long for a socket");
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    unlink(address.sun_path); /* of a pod that was killed */
    check(!bind(listener, (struct sockaddr *)&address, sizeof address), address.sun_path);
    signal(SIGPIPE, SIG_IGN); /* a client may leave at any time */
    check(!pipe(stops), "pipe");
    /* Who reads the ready line may connect, and may stop the pod, at once. */
    sigaction(SIGINT, &on_sigint, NULL);
    listen(listener, SOMAXCONN);
    /* One write, with the newline: nothing waits in a buffer of stdio's. */
    dprintf(2, "YOI-READY\t%s\t%s\n", values[POD], address.sun_path);
    dprintf(2, "pod: %s listening on \"%s\"\n", values[POD], address.sun_path);
    check(!pthread_create(&thread, NULL, serve_all, (void *)(intptr_t)listener), "thread");
    check(read(stops[0], (char[1]){0}, 1) == 1, "pipe");
    check(!nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS), directory);
    return 0;
}
