#!/usr/bin/env python3
"""A small pod in another language than the harness: standard library only.

It keeps the handshake and the habits of real pods: a pid and a status file in
the pod directory, a stale socket removed before the new one is bound, JSON
lines on the socket with a snapshot first, and a graceful stop by SIGINT or by
{"method":"shutdown"} that removes the whole pod directory.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import sys
import threading
import uuid


def parse_args(argv):
    if argv[:1] == ["pod"]:
        argv = argv[1:]
    p = argparse.ArgumentParser(prog="pod.py", allow_abbrev=False)
    p.add_argument("--workspace", required=True)
    p.add_argument("--pod", required=True)
    p.add_argument("--session", type=uuid.UUID)
    p.add_argument("--profile")
    p.add_argument("--ticket-role")
    args = p.parse_args(argv)  # exits with status 2 on bad arguments
    if args.session and args.profile:
        p.error("--profile cannot be used with --session")
    return args


def runtime_dir():
    for variable, below in (
        ("YOI_RUNTIME_DIR", ""),
        ("YOI_HOME", "run"),
        ("XDG_RUNTIME_DIR", "yoi"),
        ("HOME", ".yoi/run"),
    ):
        if os.environ.get(variable):
            return os.path.join(os.environ[variable], below)
    sys.exit("pod.py: no runtime directory (set YOI_HOME, YOI_RUNTIME_DIR, XDG_RUNTIME_DIR, or HOME)")


def write_atomically(path, text):
    with open(path + ".tmp", "w") as f:
        f.write(text)
    os.rename(path + ".tmp", path)


def main():
    args = parse_args(sys.argv[1:])
    pod_dir = os.path.abspath(os.path.join(runtime_dir(), args.pod))
    os.makedirs(pod_dir, mode=0o700, exist_ok=True)
    write_atomically(os.path.join(pod_dir, "pid"), f"{os.getpid()}\n")
    status = {"name": args.pod, "pid": os.getpid(), "state": "ready"}
    write_atomically(os.path.join(pod_dir, "status.json"), json.dumps(status) + "\n")

    def stop(*_):
        shutil.rmtree(pod_dir, ignore_errors=True)
        os._exit(0)

    signal.signal(signal.SIGINT, stop)

    path = os.path.join(pod_dir, "sock")
    if os.path.lexists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()
    os.write(2, f"YOI-READY\t{args.pod}\t{path}\n".encode())
    os.write(2, f'pod: {args.pod} listening on "{path}"\n'.encode())

    def answer(conn):
        def send(event, data=None):
            conn.sendall((json.dumps({"event": event, "data": data}) + "\n").encode())

        try:
            send("snapshot", status)
            for line in conn.makefile("rb"):
                try:
                    method = json.loads(line)["method"]
                except (ValueError, KeyError, TypeError):
                    send("error", {"message": "not a request"})
                    continue
                if method == "shutdown":
                    send("shutdown")
                    stop()
                elif method == "ping":
                    send("pong")
                else:
                    send("error", {"message": f"unknown method {method}"})
        except OSError:
            pass  # the client went away
        finally:
            conn.close()

    while True:
        conn, _ = listener.accept()
        threading.Thread(target=answer, args=(conn,), daemon=True).start()


main()
