#!/usr/bin/env python3
"""Measures the promises of this project, by counts that do not depend on the machine and can be repeated.

usage: scripts/measure.py [--check] [--binary PATH] NAME...

  syscalls      system calls of one echo, in steady state        (needs strace)
  instructions  user-space instructions of one echo              (needs valgrind)
  generator     the same of `bench`, which must not be the bottleneck (needs valgrind)
  memory        resident bytes of one idle connection, over many
  pushers       memory for clients that send and never read
  burst         the slowest of 3,000 connects at once
  descriptors   behavior at the limit of descriptors             (needs prlimit)
  idle-cost     what 19,000 idle connections add to an echo of 50 active ones (wants a quiet machine)
  all           all of them

Each prints one line with the figure, what was promised, and whether it is kept. With --check the smaller forms are run,
a measurement without its tool is skipped with a reason, and a broken promise fails the run.
Build first: cargo build --release. Everything stays on this machine's loopback, and ends by itself.
"""
import argparse
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEADLINE = 120  # seconds that any step may take
failures = []


def verdict(name, kept, figure, promise):
    print(f"{name:13} {figure}; promised: {promise}: {'kept' if kept else 'BROKEN'}", flush=True)
    if not kept:
        failures.append(name)


class Server:
    """`serve` as a child process, on a port that the system picks."""

    def __init__(self, *flags, wrapper=()):
        command = [*wrapper, options.binary, "serve", "tcp://127.0.0.1:0", "--idle-timeout", "1h", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        match = re.match(r"listening tcp://127\.0\.0\.1:(\d+)", line)
        if not match:
            sys.exit(f"the server did not start: {' '.join(command)} said {line!r}")
        self.address = ("127.0.0.1", int(match.group(1)))
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def client(self):
        client = socket.create_connection(self.address, DEADLINE)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def resident_bytes(self):
        with open(f"/proc/{self.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+) kB", status.read()).group(1)) * 1024

    def cpu_seconds(self):
        with open(f"/proc/{self.pid}/schedstat") as schedstat:
            return int(schedstat.read().split()[0]) / 1e9


def echo(client, message):
    client.sendall(message)
    back = b""
    while len(back) < len(message):
        part = client.recv(len(message) - len(back))
        if not part:
            sys.exit("the server closed the connection")
        back += part
    assert back == message, "the echo differs"


def syscalls():
    echoes = 1_000
    with Server() as server, server.client() as client, tempfile.NamedTemporaryFile("r") as table:
        echo(client, b"x" * 64)
        strace = subprocess.Popen(
            ["strace", "-f", "-c", "-o", table.name, "-p", str(server.pid)], stderr=subprocess.PIPE, text=True)
        if "attached" not in strace.stderr.readline():
            return print("syscalls      skipped: strace may not attach here (it needs ptrace)")
        for _ in range(echoes):
            echo(client, b"x" * 64)
        strace.send_signal(signal.SIGINT)
        strace.wait(DEADLINE)
        counts = {}
        for line in table:
            fields = line.split()
            if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
                counts[fields[-1]] = int(fields[3])
    # A single client that waits for each answer makes one epoll_wait an echo, as no other event shares it. strace detaches
    # in the middle of one, which is not counted.
    good = (counts.get("recvfrom") == echoes and counts.get("sendto") == echoes
            and set(counts) == {"recvfrom", "sendto", "epoll_wait"} and abs(counts["epoll_wait"] - echoes) <= 2)
    told = ", ".join(f"{count / echoes:.3f} {name}" for name, count in sorted(counts.items()))
    verdict("syscalls", good, f"{told} an echo", "1 recvfrom, 1 sendto, at most 1 epoll_wait, nothing else")


def calls_of(function, profile):
    """The number of calls of a function in callgrind's output, which has its name once, and its number from then on."""
    numbers = set(re.findall(rf"^c?fn=(\(\d+\)) {function}(?:@.*)?$", profile, re.M))
    calls = re.findall(r"^cfn=(\(\d+\)).*\n(?:cob=.*\n|cfi=.*\n|cfl=.*\n)*calls=(\d+)", profile, re.M)
    return sum(int(count) for number, count in calls if number in numbers)


def instructions():
    """The cost of an echo, and the cost of a turn of the loop, which all connections ready in it share.

    How many share a turn depends on what else this machine is doing, so the two are computed apart: one client has a turn
    for each echo, eight have fewer, and callgrind counts the turns, which are the calls of epoll_wait. Two equations, two
    unknowns. Each is the difference between a long run and a short one, so that start and end cancel out.
    """
    def counted(clients, rounds):
        message = os.urandom(64)
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "out")
            wrapper = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
            with Server(wrapper=wrapper) as server:
                sockets = [server.client() for _ in range(clients)]
                for _ in range(rounds):
                    for client in sockets:
                        client.sendall(message)
                    for client in sockets:
                        got = b""
                        while len(got) < len(message):
                            got += client.recv(len(message) - len(got))
                        assert got == message
            with open(out) as profile:
                text = profile.read()
        return int(re.search(r"^(?:totals|summary): (\d+)", text, re.M).group(1)), calls_of("epoll_wait", text)

    def difference(clients, short, long):
        (few, few_turns), (many, many_turns) = counted(clients, short), counted(clients, long)
        return many - few, clients * (long - short), many_turns - few_turns

    scale = 1 if options.check else 5
    alone, echoes_alone, turns_alone = difference(1, 100, 100 + 300 * scale)
    for _ in range(3):
        total, echoes, turns = difference(8, 50, 50 + 150 * scale)
        if turns and echoes / turns > 1.5:
            break
    else:
        return print(f"instructions  skipped: {echoes:,} echoes of eight clients took {turns:,} turns, so none were shared")
    determinant = echoes_alone * turns - echoes * turns_alone
    an_echo = (alone * turns - total * turns_alone) / determinant
    a_turn = (echoes_alone * total - echoes * alone) / determinant
    shared = an_echo + a_turn / 8
    verdict("instructions", shared <= 200,
            f"{an_echo:.0f} user-space instructions an echo, and {a_turn:.0f} a turn, shared by all ready connections: {shared:.0f} "
            f"an echo where eight share it ({total / echoes:.0f} here, where {echoes / turns:.1f} did)", "at most 200 where eight share it")


def worker_plan(address, connections, requests):
    """The plan of one worker of `bench`, as src/load/plan.rs declares it: a closed loop of so many requests of 64 bytes."""
    def time(seconds):
        return {"secs": seconds, "nanos": 0}
    bad_clients = {"slow_reader": 0, "reset": 0, "slowloris": 0, "half_close": 0}
    return {"targets": [f"tcp://{address[0]}:{address[1]}"], "sources": None, "worker": 0, "first_number": 0,
            "connections": connections, "active": connections, "active_by_worker": [connections], "bad_clients": bad_clients,
            "size": 64, "depth": 1, "mode": "closed", "trigger": "level", "warm_up": time(0),
            "duration": time(DEADLINE), "requests": requests, "ramp_up": time(0), "connect_concurrency": 64,
            "timeout": time(DEADLINE), "interval": time(DEADLINE), "seed": 1, "servers": [], "reset_at_end": False}


def generator():
    """The cost of an echo in `bench`, and the cost of a turn of its loop, computed apart as in `instructions`.

    The worker is run alone, with its plan and its commands over pipes, as `bench` runs it. `bench` itself starts its workers
    from /proc/self/exe, and under valgrind that file is valgrind: its workers could not be counted.
    """
    def counted(server, connections, requests):
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "out")
            command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", options.binary, "bench", "--worker"]
            worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            watchdog = threading.Timer(DEADLINE, worker.kill)
            watchdog.start()
            print(json.dumps(worker_plan(server.address, connections, requests)), file=worker.stdin, flush=True)
            done = None
            for message in map(json.loads, worker.stdout):
                if "opened" in message:
                    print(f"go {time.monotonic_ns()}", file=worker.stdin, flush=True)
                if "done" in message:
                    done = message["done"]
            watchdog.cancel()
            worker.stdin.close()
            if worker.wait(DEADLINE) or not done or done["faults"]:
                sys.exit(f"a worker of bench did not do its {requests:,} requests: {done and done['faults']}")
            # The first echo of each connection proves it, and is not one of the requests.
            assert done["counters"]["echoed"] == requests + connections, done["counters"]
            with open(out) as profile:
                text = profile.read()
        return int(re.search(r"^(?:totals|summary): (\d+)", text, re.M).group(1)), calls_of("epoll_wait", text)

    def difference(connections):
        (less, fewer_turns), (more, more_turns) = counted(server, connections, few), counted(server, connections, many)
        return (more - less) / (many - few), (more_turns - fewer_turns) / (many - few)

    scale = 1 if options.check else 5
    few, many = 2_000, 2_000 + 8_000 * scale
    with Server() as server:
        shared, turns_shared = difference(50)
        alone, turns_alone = difference(1)
    a_turn = (alone - shared) / (turns_alone - turns_shared)
    an_echo = alone - turns_alone * a_turn
    verdict("generator", an_echo + a_turn / 8 <= 600,
            f"{an_echo:.0f} user-space instructions of `bench` an echo, and {a_turn:.0f} a turn, shared by all answers that are "
            f"there: {an_echo + a_turn / 8:.0f} an echo where eight share it ({shared:.0f} over 50 connections here, where "
            f"{1 / turns_shared:.1f} did; {alone:.0f} over one)", "at most 600 where eight share it")


def connect_many(server, count):
    clients = []
    for i in range(count):
        client = socket.socket()
        client.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: one port serves many tuples
        client.bind((f"127.0.0.{2 + i // 20_000}", 0))
        client.settimeout(DEADLINE)
        client.connect(server.address)
        clients.append(client)
    return clients


def memory():
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    count = min(3_000 if options.check else 15_000, limit - 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with Server() as server:
        with server.client() as client:
            echo(client, b"warm")
        before = server.resident_bytes()
        clients = connect_many(server, count)
        for client in clients:
            echo(client, b"x")
        each = (server.resident_bytes() - before) / count
        for client in clients:
            client.close()
    # A page more or less is 1.4 bytes at 3,000 connections; the rest of the margin is for the run queue, once.
    most = 90 if options.check else 64
    verdict("memory", each <= most, f"{each:.1f} resident bytes an idle connection, over {count:,}", f"at most {most}")


def pushers():
    """Clients that send what they can and never read: each may cost one read buffer and no more."""
    with Server() as server:
        with server.client() as client:
            echo(client, b"warm" * 20_000)
        before = server.resident_bytes()
        clients = [server.client() for _ in range(30)]
        chunk, pushed = b"x" * 65_536, 0
        for client in clients:
            client.setblocking(False)
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < 0.5:
            for client in select.select([], clients, [], 0.1)[1]:
                try:
                    pushed += client.send(chunk)
                    quiet_since = time.monotonic()
                except BlockingIOError:
                    pass
        each = (server.resident_bytes() - before) / len(clients)
        with server.client() as other:
            start = time.monotonic()
            echo(other, b"still there?")
            answer_ms = (time.monotonic() - start) * 1e3
        for client in clients:
            client.close()
    verdict("pushers", each < 65_536,
            f"{each / 1024:.1f} KiB more for each of 30 clients that never read ({pushed / 1e6:.0f} MB pushed), "
            f"another one is answered in {answer_ms:.1f} ms", "under 64 KiB each")


def burst():
    count = 1_000 if options.check else 3_000
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with open("/proc/sys/net/core/somaxconn") as file:
        queue = int(file.read())
    if queue < count:
        return print(f"burst         skipped: net.core.somaxconn is {queue}, and {count} are to fit")
    with Server() as server:
        start, waiting, slowest = time.monotonic(), {}, 0.0
        poll = select.epoll()
        for _ in range(count):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(server.address)
            poll.register(client, select.EPOLLOUT)
            waiting[client.fileno()] = (client, time.monotonic())
        done = []
        while waiting and time.monotonic() - start < DEADLINE:
            for fd, _ in poll.poll(1):
                client, begun = waiting.pop(fd)
                poll.unregister(fd)
                slowest = max(slowest, time.monotonic() - begun)
                done.append(client)
        for client in done:
            client.setblocking(True)
            client.settimeout(DEADLINE)
            echo(client, b"x")
            client.close()
    # A dropped SYN is sent again after a second; all else is the load of this machine.
    verdict("burst", len(done) == count and slowest < 1.0,
            f"{len(done):,} connects at once, the slowest took {slowest * 1e3:.0f} ms", "none waits for a second SYN (1 s)")


def descriptors():
    """No descriptors left while clients queue up; then some come free, with no new connection that would raise an edge."""
    with Server() as server:
        held = [server.client() for _ in range(20)]
        for client in held:
            echo(client, b"in")
        used = len(os.listdir(f"/proc/{server.pid}/fd"))
        subprocess.run(["prlimit", f"--nofile={used}:{used}", "--pid", str(server.pid)], check=True)
        queued = [server.client() for _ in range(10)]  # the kernel completes the handshakes; accept(2) fails
        for client in queued:
            client.sendall(b"queued")
        cpu, start = server.cpu_seconds(), time.monotonic()
        slowest = 0.0
        while time.monotonic() - start < 2:
            begun = time.monotonic()
            echo(held[0], b"still here")
            slowest = max(slowest, time.monotonic() - begun)
            time.sleep(0.02)
        load = (server.cpu_seconds() - cpu) / (time.monotonic() - start)
        freed = time.monotonic()
        for client in held[5:]:
            client.close()
        for client in queued:
            assert client.recv(6) == b"queued"
        served_ms = (time.monotonic() - freed) * 1e3
    verdict("descriptors", load < 0.05 and served_ms < 100,
            f"{load * 100:.1f} % CPU without descriptors, open connections wait {slowest * 1e3:.1f} ms at most; "
            f"10 queued clients are served {served_ms:.1f} ms after some came free", "under 5 %, within 100 ms")


def idle_cost():
    """Two servers, one with many idle connections; the same load on both, in turn, and the medians."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    idle = min(2_000 if options.check else 19_000, limit - 500)
    rounds, seconds = (3, 1) if options.check else (11, 3)
    cores = sorted(os.sched_getaffinity(0))

    def cpu_of_an_echo(server):
        """In nanoseconds, as the scheduler counts it for the server's process; the load has a core of its own."""
        command = [options.binary, "bench", f"tcp://127.0.0.1:{server.address[1]}", "-c", "50", "-d", f"{seconds}s",
                   "--server-pid", str(server.pid), "--format", "json", "-q"]
        load = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=DEADLINE,
                              preexec_fn=lambda: os.sched_setaffinity(0, cores[1:] or cores))
        report = json.loads(load.stdout)
        assert not report["faults"], report["faults"]
        return report["server"]["cpu_ns_per_echo"]

    with Server() as alone, Server() as crowded:
        for server in alone, crowded:
            os.sched_setaffinity(server.pid, cores[:1])
        clients = connect_many(crowded, idle)
        for client in clients:
            echo(client, b"x")
        cpu_of_an_echo(alone), cpu_of_an_echo(crowded)  # warm
        pairs = []
        for turn in range(rounds):  # the order alternates
            if turn % 2:
                without, beside = cpu_of_an_echo(alone), cpu_of_an_echo(crowded)
            else:
                beside, without = cpu_of_an_echo(crowded), cpu_of_an_echo(alone)
            pairs.append((without, beside))
        for client in clients:
            client.close()
    ratios = [beside / without for without, beside in pairs]
    ratio = statistics.median(ratios)
    without, beside = (statistics.median(column) for column in zip(*pairs))
    verdict("idle-cost", ratio <= 1.10,
            f"{beside:,.0f} ns of CPU an echo beside {idle:,} idle connections, {without:,.0f} without: ratio {ratio:.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f} in {rounds} rounds of {seconds} s each)", "at most 1.10")


TOOLS = {"syscalls": "strace", "instructions": "valgrind", "generator": "valgrind", "descriptors": "prlimit"}
MEASURES = [syscalls, instructions, generator, memory, pushers, burst, descriptors, idle_cost]

if __name__ == "__main__":
    names = [measure.__name__.replace("_", "-") for measure in MEASURES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", choices=[*names, "all"])
    parser.add_argument("--check", action="store_true", help="smaller forms, for CI")
    parser.add_argument("--binary", default=os.path.join(ROOT, "target/release/echo-reactor"))
    options = parser.parse_args()
    if not os.access(options.binary, os.X_OK):
        sys.exit(f"there is no {options.binary}; build it first: cargo build --release")
    for measure in MEASURES:
        name = measure.__name__.replace("_", "-")
        if name in options.names or "all" in options.names:
            if shutil.which(TOOLS.get(name, "true")):
                measure()
            else:
                print(f"{name:13} skipped: there is no {TOOLS[name]}")
    if failures:
        sys.exit(f"broken: {', '.join(failures)}")
