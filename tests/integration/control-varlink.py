#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""carvqd's control socket through the `varlink` package and through bare sockets. TAP.

    control-varlink.py CARVQD WRITE_TABLE INTERFACE_FILE
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

try:
    import varlink
except ImportError:
    varlink = None

carvqd, write_table, interface_file = sys.argv[1:]
n = failed = 0


def case(name, function, *arguments):
    global n, failed
    n += 1
    try:
        function(*arguments)
        print(f"ok {n} - {name}")
    except Exception as error:
        failed += 1
        print(f"not ok {n} - {name}\n# {type(error).__name__}: {error}")


def skip(name, reason):
    global n
    n += 1
    print(f"ok {n} - {name} # SKIP {reason}")


def start(folder):
    control = folder + "/control.sock"
    table = folder + "/small.carvq"
    subprocess.run([write_table, table, "100", "8", "f32"], check=True)
    daemon = subprocess.Popen(
        [carvqd, "--config", "/dev/null", "--socket", folder + "/data.sock", "--control", control,
         "--tables-dir", "", "--table", "small=" + table,
         "--event-loop", os.environ.get("CARVQD_EVENT_LOOP", "auto")],
        stderr=open(folder + "/log", "w"))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and daemon.poll() is None:
        try:
            connect(control).close()
            return daemon, control, table
        except OSError:
            os.sched_yield()
    sys.exit("Bail out! carvqd does not start: " + open(folder + "/log").read())


def connect(path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(20)
    s.connect(path)
    return s


def replies_to(path, data):
    """What comes back until the daemon closes, for bytes after which there are no more."""
    with connect(path) as s:
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        received = b""
        try:
            while chunk := s.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass
    return [json.loads(message) for message in received.split(b"\0")[:-1]]


def call(method, **more):
    return json.dumps({"method": method, **more}).encode() + b"\0"


# ---- bare sockets ----


def pipelined(control, table):
    calls = (
        call("io.carvq.Control.GetStats")
        + call("io.carvq.Control.GetStatus")
        + call("io.carvq.Control.UnloadTable", parameters={"name": "none"}, oneway=True)
        + call("io.carvq.Control.ListTables")
        + call("io.carvq.Control.UnloadTable", parameters={"name": "none"})
        + call("io.carvq.Control.LoadTable", parameters={"name": "more", "path": table})
        + call("io.carvq.Control.Reload")
        + call("io.carvq.Control.Reload")
        + call("org.varlink.service.GetInfo")
    )
    replies = replies_to(control, calls)
    seen = [sorted(r["parameters"]) if "error" not in r else r["error"] for r in replies]
    assert len(seen) == 8, seen
    assert seen[0] == ["clients", "daemon", "tables"] and "pid" in seen[1] and seen[2] == ["refusals", "tables"], seen
    assert seen[3] == "io.carvq.Control.NoSuchTable" and seen[4] == ["generation"], seen
    assert seen[5] == ["loaded", "needs_restart", "refusals", "unloaded", "warnings"], seen
    assert seen[6] == seen[5] and "interfaces" in seen[7], seen


def many_pipelined(control):
    calls = call("org.varlink.service.GetInterfaceDescription",
                 parameters={"interface": "io.carvq.Control"}) * 2000
    assert len(replies_to(control, calls)) == 2000


def bad_bytes(control):
    for data in (b"\0", b"{\0", b"[]\0", b"{}\0", b'{"method": 1}\0', b"\xff\xfe\0",
                 b'{"method": "a.b", "parameters": 1}\0', b"[" * 60000 + b"\0", b"x" * 70000):
        assert replies_to(control, data) == [], data[:40]
    assert len(replies_to(control, call("io.carvq.Control.GetStatus"))) == 1


def too_many(control):
    connections = [connect(control) for _ in range(80)]
    answered = 0
    for s in connections:
        try:
            s.sendall(call("org.varlink.service.GetInfo"))
            answered += bool(s.recv(65536))
        except (BrokenPipeError, ConnectionResetError):
            pass
    for s in connections:
        s.close()
    assert answered == 64, answered
    # The daemon hears of the ends one by one.
    deadline = time.monotonic() + 20
    while not replies_to(control, call("org.varlink.service.GetInfo")):
        assert time.monotonic() < deadline


# ---- the package ----


def introspect(control):
    with varlink.Client("unix:" + control) as client:
        client.get_interfaces()
        info = client.info
        assert info["product"] == "carvqd", info
        assert info["interfaces"] == ["org.varlink.service", "io.carvq.Control"], info
        description = client.get_interface("io.carvq.Control").get_description()
        assert description == open(interface_file).read()


def methods(control, table):
    with varlink.Client("unix:" + control) as client, client.open("io.carvq.Control") as c:
        assert c.GetStatus()["pid"] > 0
        assert c.ListTables()["tables"][0]["name"] == "small"
        assert c.ListClients()["clients"] == []
        assert c.GetStats()["tables"][0]["stats"]["measured"].get("p50_ns") is None
        assert c.GetStats("small")["tables"][0]["table"]["counted"]["file_bytes"] > 3200
        assert c.LoadTable("other", table)["generation"] > 1
        assert c.Reload()["loaded"] == []
        c.UnloadTable("other")
        c.UnloadTable("other", _oneway=True)
        assert c.GetStatus()["version"]


def errors(control):
    with varlink.Client("unix:" + control) as client, client.open("io.carvq.Control") as c:
        for name, arguments, error in (
            ("GetStats", ["none"], "io.carvq.Control.NoSuchTable"),
            ("UnloadTable", ["none"], "io.carvq.Control.NoSuchTable"),
            ("LoadTable", ["a/b", "/x"], "io.carvq.Control.InvalidName"),
            ("LoadTable", ["a", "/nonexistent"], "io.carvq.Control.LoadFailed"),
            ("LoadTable", ["a", "relative"], "org.varlink.service.InvalidParameter"),
        ):
            try:
                getattr(c, name)(*arguments)
            except varlink.VarlinkError as e:
                assert e.error() == error, (name, e.error())
            else:
                raise AssertionError(f"{name} did not fail")


def ends_with_zero(daemon, control):
    """Also with connections open, one of them in the middle of a call."""
    idle, half = connect(control), connect(control)
    half.sendall(b'{"method":')
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(20) == 0
    idle.close()
    half.close()


with tempfile.TemporaryDirectory() as folder:
    daemon, control, table = start(folder)
    try:
        case("pipelined calls are answered in order", pipelined, control, table)
        case("two thousand pipelined calls", many_pipelined, control)
        case("bytes that are no call close the connection", bad_bytes, control)
        case("connections are limited", too_many, control)
        for name, function, *arguments in (
            ("package: introspection gives the file", introspect, control),
            ("package: every method", methods, control, table),
            ("package: errors", errors, control),
        ):
            if varlink:
                case(name, function, *arguments)
            else:
                skip(name, "the Python package varlink is not installed (pip install varlink)")
        case("SIGTERM ends it with 0", ends_with_zero, daemon, control)
    finally:
        if daemon.poll() is None:
            daemon.kill()
        daemon.wait()
print(f"1..{n}")
sys.exit(failed > 0)
