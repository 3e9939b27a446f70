#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What carvqd tells a service manager, which this script plays. TAP: notify.py CARVQD WRITE_TABLE STALL_THREAD"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

carvqd, write_table, stall_thread = map(os.path.abspath, sys.argv[1:])
WATCHDOG_S = 2.0
EVENT_LOOP = os.environ.get("CARVQD_EVENT_LOOP", "io_uring")
PATIENCE_S = 60  # for what must happen; sanitized on a busy machine that takes its time
n_cases = n_failed = 0


def result(name, ok, note=""):
    global n_cases, n_failed
    n_cases += 1
    n_failed += not ok
    print(f"{'' if ok else 'not '}ok {n_cases} - {name}")
    if not ok:
        print(f"# {note}")


class Manager:
    """A daemon, and the socket on which it says how it is."""

    def __init__(self, folder, deaf=False):
        self.folder = folder
        self.messages = []  # (time, {key: value})
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"{folder}/notify")
        if deaf:
            self.fill()
        environment = dict(os.environ, NOTIFY_SOCKET=f"{folder}/notify", WATCHDOG_USEC=str(int(WATCHDOG_S * 1e6)))
        # Not meant for this process:
        for name in "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "JOURNAL_STREAM", "RUNTIME_DIRECTORY":
            environment.pop(name, None)
        self.log = open(f"{folder}/log", "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [carvqd, "--config", "/dev/null", "--socket", f"{folder}/data", "--control", f"{folder}/control",
             "--tables-dir", f"{folder}/tables", "--cpu-mask", "scalar", "--workers", "2",
             "--event-loop", EVENT_LOOP],
            env=environment, stderr=self.log)

    def fill(self):
        """Sends until there is no room, whoever sends."""
        while True:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.connect(f"{self.folder}/notify")
                for n in range(100):
                    try:
                        sender.send(b"FILLED=1")
                    except BlockingIOError:
                        if n == 0:
                            return
                        break

    def receive(self, timeout_s):
        self.socket.settimeout(max(timeout_s, 0.001))
        try:
            text = self.socket.recv(4096).decode()
        except (socket.timeout, BlockingIOError):
            return None
        message = dict(line.split("=", 1) for line in text.splitlines())
        self.messages.append((time.monotonic(), message))
        return message

    def expect(self, key, pattern=".*"):
        """The next message in which `key` matches; None when patience is over."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            message = self.receive(min(deadline - time.monotonic(), 1))
            if message and re.fullmatch(pattern, message.get(key, "-")):
                return message
        return None

    def listen(self, duration_s):
        """All messages of a while."""
        n, deadline = len(self.messages), time.monotonic() + duration_s
        while time.monotonic() < deadline:
            self.receive(deadline - time.monotonic())
        return [message for _, message in self.messages[n:]]

    def connect(self):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.connect(f"{self.folder}/data")
        return client


def publish(folder, name):
    subprocess.run([write_table, f"{folder}/{name}.tmp", "100", "16", "carvq"], check=True)
    os.rename(f"{folder}/{name}.tmp", f"{folder}/tables/{name}.carvq")


def test_status(m):
    message = m.expect("READY", "1")
    result("ready, with a status",
           message and message.get("STATUS") == f"Serving 1 table (one) to 0 clients, kernels scalar, event loop {EVENT_LOOP}", message)
    client = m.connect()
    result("a client is counted", m.expect("STATUS", r"Serving 1 table \(one\) to 1 client, .*"), m.messages)
    client.close()
    result("... until it goes", m.expect("STATUS", r"Serving 1 table \(one\) to 0 clients, .*"), m.messages)

    n, start = len(m.messages), time.monotonic()
    while time.monotonic() < start + 3:
        m.connect().close()
        m.receive(0.001)
    told = sum("STATUS" in message for _, message in m.messages[n:])
    result("many clients are told of once a second", 1 <= told <= 5, told)


def test_reload(m):
    publish(m.folder, "two")
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    m.process.send_signal(signal.SIGHUP)
    message = m.expect("RELOADING", "1")
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    result("a reload is announced, with its time",
           message and before <= int(message.get("MONOTONIC_USEC", 0)) <= after, message)
    message = m.expect("READY", "1")
    result("... and ends when the tables are there",
           message and re.match(r"Serving 2 tables \(\w+, \w+\) to ", message.get("STATUS", "")), message)


def test_watchdog(m):
    result("an idle daemon gives signs of life", m.expect("WATCHDOG", "1") and m.expect("WATCHDOG", "1"), m.messages)
    stall = subprocess.Popen([sys.executable, stall_thread, str(m.process.pid), "carvqd-worker"],
                             stdout=subprocess.PIPE, text=True)
    word = stall.stdout.readline().strip()
    if word != "stalled":
        result("a stuck worker # SKIP no thread can be held here", True)
        return
    # One may be under way already: the worker had moved when it was last asked.
    m.listen(WATCHDOG_S / 2)
    signs = [message for message in m.listen(WATCHDOG_S * 1.5) if "WATCHDOG" in message]
    result("with one of two workers stuck there are none", not signs, signs)
    stall.kill()
    stall.wait()
    result("when it moves again there are", m.expect("WATCHDOG", "1"), m.messages)
    m.log.seek(0)
    result("... and the log has it", re.search("^warning worker [01] gives no sign of life$", m.log.read(), re.M))


def test_deaf_manager(folder):
    """The socket takes no more from the start: the daemon goes on, and is heard when there is room again."""
    m = Manager(folder, deaf=True)
    deadline = time.monotonic() + PATIENCE_S
    while not os.path.exists(f"{folder}/data") and time.monotonic() < deadline:
        time.sleep(0.01)
    with m.connect() as client:
        client.settimeout(PATIENCE_S)
        client.send(b"not a greeting")
        result("a manager that does not listen holds up nobody", client.recv(512))
    result("... and hears the news later", m.expect("READY", "1"), m.messages[-3:])
    m.process.kill()
    m.process.wait()


def test_end(m):
    m.process.terminate()
    message = m.expect("STOPPING", "1")
    result("the end is announced", message and message.get("STATUS") == "Stopping, 0 clients to hand over", message)
    result("... and orderly", m.process.wait(PATIENCE_S) == 0, m.process.returncode)


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(f"{folder}/tables")
        publish(folder, "one")
        m = Manager(folder)
        try:
            for test in test_status, test_reload, test_watchdog, test_end:
                test(m)
        finally:
            if m.process.poll() is None:
                m.process.kill()
                m.process.wait()
            if n_failed:
                m.log.seek(0)
                print("".join(f"# {line}" for line in m.log))
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(f"{folder}/tables")
        test_deaf_manager(folder)
    print(f"1..{n_cases}")
    sys.exit(n_failed != 0)


main()
