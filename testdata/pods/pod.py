#!/usr/bin/env python3
"""A pod in Python, with nothing but its standard library.

    pod.py [pod] --workspace DIR --pod NAME [--session UUID | --profile P] [--ticket-role R]

It keeps the handshake (spawn/HANDSHAKE.md); main() has the order in which things happen.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import sys
import threading


def parse_args(argv):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--pod", required=True)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--session")
    either.add_argument("--profile")
    parser.add_argument("--ticket-role")
    args = parser.parse_args(argv[1:] if argv[:1] == ["pod"] else argv)  # wrong ones: status 2
    if args.pod in ("", ".", "..") or "/" in args.pod:
        parser.error("--pod must be one path element")
    return args


def runtime_dir():
    for variable, below in (
        ("YOI_RUNTIME_DIR", ""),
        ("YOI_HOME", "run"),
        ("XDG_RUNTIME_DIR", "yoi"),
        ("HOME", ".yoi/run"),
    ):
        if os.environ.get(variable):  # an empty one counts as unset
            return os.path.join(os.environ[variable], below)
    sys.exit("pod.py: no runtime directory (set YOI_HOME, YOI_RUNTIME_DIR, XDG_RUNTIME_DIR, or HOME)")


def write_atomically(path, text):
    with open(path + ".tmp", "w") as f:
        f.write(text)
    os.rename(path + ".tmp", path)


def serve(client, status, stop):
    def send(event, data):
        client.sendall(json.dumps({"event": event, "data": data}).encode() + b"\n")

    try:
        with client, client.makefile("rb") as lines:
            send("snapshot", status)
            for line in lines:
                try:
                    request = json.loads(line)
                except ValueError:
                    request = None
                if isinstance(request, dict) and request.get("method") == "shutdown":
                    stop()
                send("error", {"message": "unknown method"})
    except OSError:
        pass  # the client went away, which is its right


def main():
    args = parse_args(sys.argv[1:])
    directory = os.path.join(runtime_dir(), args.pod)
    path = os.path.join(directory, "sock")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    status = {"pid": os.getpid(), "state": "running"}
    write_atomically(os.path.join(directory, "pid"), f"{os.getpid()}\n")
    write_atomically(os.path.join(directory, "status.json"), json.dumps(status) + "\n")

    def stop(*_):
        shutil.rmtree(directory, ignore_errors=True)  # two may stop it at once
        os._exit(0)  # ends all threads

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if os.path.lexists(path):
        os.unlink(path)  # of a pod that was killed
    listener.bind(path)
    # Who reads the ready line may connect, and may stop the pod, at once.
    signal.signal(signal.SIGINT, stop)
    listener.listen()
    # The line goes out whole, and now: no buffer holds or cuts it.
    log = open(2, "wb", buffering=0)
    log.write(os.fsencode(f"YOI-READY\t{args.pod}\t{path}\n"))
    log.write(os.fsencode(f'pod: {args.pod} listening on "{path}"\n'))
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client, status, stop), daemon=True).start()


main()
