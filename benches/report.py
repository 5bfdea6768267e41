"""Runs the programs here, and makes tables and plots of what they say.

    report.py [SECTION...]      measures these sections, or all, and writes them into docs/performance.md
    report.py --check           measures the main paths, and fails if one has passed its limit in limits.tsv
    report.py --record          measures them, and writes limits a little above that

A number of instructions or allocations is the difference of a long and a short run, so that what is made once does not
count. Both are valgrind's: the program is the same that is timed.
"""

import concurrent.futures
import json
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PROGRAMS = TARGET / "release"
PAGE = ROOT / "docs/performance.md"
LIMITS = ROOT / "benches/limits.tsv"
MEASURED = TARGET / "benches.json"

# How far above what was measured a limit is put, and how much it may cost more that there are many sessions.
ROOM = 1.05
GROWTH = 1.04


def run(*words):
    """What a command prints."""
    done = subprocess.run([str(word) for word in words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout


def tsv(*words):
    """The lines that a program prints, each by the names in the first one."""
    names, *lines = (line.split("\t") for line in run(*words).splitlines())
    return [dict(zip(names, line)) for line in lines]


# Instructions and allocations


def instructions(service, request, requests):
    with tempfile.NamedTemporaryFile("r") as log:
        run("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", f"--log-file={log.name}",
            "--toggle-collect=*drive::counted*", PROGRAMS / "bench", "requests", service, request, requests)
        return int(re.search(r"Collected : (\d+)", log.read())[1])


def allocations(service, request, requests):
    with tempfile.NamedTemporaryFile("r") as log:
        run("valgrind", "--tool=memcheck", "--leak-check=no", "--undef-value-errors=no", f"--log-file={log.name}",
            PROGRAMS / "bench", "requests", service, request, requests)
        return int(re.search(r"total heap usage: ([\d,]+) allocs", log.read())[1].replace(",", ""))


def lengths(count, request):
    """How many requests a short run has, and a long one. An allocation is an allocation; instructions vary a little."""
    if count is allocations:
        return 100, 600
    if "@" in request:
        # The allocator tidies up once after so many sessions were made: some millions of instructions.
        return 5000, 30_000
    return (100, 700) if request == "dead64k" else (500, 3500)


def cost(wanted):
    """The instructions and allocations of one request, of each service and request wanted."""
    def difference(count, service, request):
        short, long = lengths(count, request)
        return (count(service, request, long) - count(service, request, short)) / (long - short)

    # Nothing here is timed, so all processors may count.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        counted = {}
        for service, request in wanted:
            if (service, request) not in counted:
                counted[service, request] = [
                    pool.submit(difference, count, service, request)
                    for count in ([instructions] if "@" in request else [instructions, allocations])
                ]
        return {which: [each.result() for each in both] for which, both in counted.items()}


# Sections: what is measured


def requests():
    rows = [
        ("bare", "live", "noop"), ("noop", "live", "noop"), ("handin", "live", "noop"), ("memory", "live", "handin"),
        ("boxed", "live", "handin"), ("async", "live", "handin"), ("memory", "json", "handin"),
        ("memory", "principal", "handin"), ("memory", "modern", "noop"), ("memory", "unguarded", "noop"),
        ("memory", "dead", "noop"), ("memory", "dead64k", "noop"),
    ]
    return beside(rows)


def peers():
    live = ["memory", "from_fn", "tower-sessions", "tower-sessions+save"]
    dead = ["memory", "from_fn", "tower-sessions", "rmcp"]
    return beside([(service, "live", "noop") for service in live]
                  + [(service, "dead", "noop") for service in dead]
                  + [(service, "dead64k", "noop") for service in dead])


def rmcp():
    return beside([(service, "ping", base) for service, base in
                   [("handin+rmcp", "rmcp"), ("layer+rmcp", "handin+rmcp"), ("layer+rmcp", "rmcp")]])


def with_timer(service):
    name, *inner = service.split("+")
    return "+".join([name, "timer", *inner])


def beside(rows):
    """Each service beside another one, for the same request; and beside that when a timer is pending."""
    wanted = {(name, request) for service, request, base in rows for name in (service, base, with_timer(base))}
    costs = cost(sorted(wanted))
    return [{
        "service": service, "request": request, "beside": base, "of": costs[service, request],
        "base": costs[base, request], "timed": costs[with_timer(base), request],
    } for service, request, base in rows]


def growth():
    costs = cost([("memory", f"live@{sessions}") for sessions in (100, 100_000)])
    return [{"sessions": int(request.split("@")[1]), "of": of} for (_, request), of in costs.items()]


def lookups():
    return tsv(PROGRAMS / "bench", "lookups")


def creations():
    return tsv(PROGRAMS / "bench", "creations")


def streams():
    return tsv(PROGRAMS / "bench", "streams")


def memory():
    sessions = [tsv(PROGRAMS / "bytes", "sessions", who, 1_000_000)[0] for who in ("anonymous", "shared", "distinct")]
    return {"sessions": sessions, "streams": tsv(PROGRAMS / "bytes", "streams", 10_000)}


def sockets():
    return tsv(PROGRAMS / "bench", "sockets", 20_000, 2_000)


def stores():
    run("cargo", "build", "--release", "-p", "mcp-session-layer-benches", "--features", "stores", "--bin", "stores")
    return {store: run(PROGRAMS / "stores", store) for store in ("redis", "postgres", "sqlite")}


# Sections: what is written


def table(names, rows):
    """In Markdown. A name that ends in a colon is that of a column of numbers."""
    heads = [name.rstrip(":") for name in names]
    rules = ["--:" if name.endswith(":") else "---" for name in names]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in [heads, rules, *rows])


def number(value, digits=0):
    return f"{float(value):,.{digits}f}"


def signed(value, digits=0):
    return f"{value:+,.{digits}f}"


def requests_page(rows):
    cells = []
    for row in rows:
        net, timed = (row["of"][0] - row[base][0] for base in ("base", "timed"))
        has_timer = row["service"] in KEPT and row["request"] != "unguarded"
        cells.append([f"`{row['service']}`", row["request"], number(row["of"][0]), f"`{row['beside']}`", signed(net),
                      signed(timed) if has_timer else "", signed(row["of"][1] - row["base"][1], 1)])
    names = ["service", "request", "Ir:", "beside", "net Ir:", "with a timer there:", "net allocations:"]
    return table(names, cells)


# Services that have a timer pending, which is the layer's keeper's.
KEPT = {"memory", "boxed", "async", "layer+rmcp"}


def rmcp_page(rows):
    cells = []
    for row in rows:
        base = row["timed"]
        more = row["of"][0] / base[0] - 1
        cells.append([f"`{row['service']}`", number(row["of"][0]), f"`{with_timer(row['beside'])}`", number(base[0]),
                      f"{100 * more:+.1f} %", signed(row["of"][1] - base[1], 1)])
    return table(["service", "Ir:", "beside", "Ir of that:", "more:", "net allocations:"], cells)


def growth_page(rows):
    least = rows[0]["of"][0]
    return table(["live sessions:", "Ir of a request:", "ratio:"],
                 [[number(row["sessions"]), number(row["of"][0]), f"{row['of'][0] / least:.3f}"] for row in rows])


def by_size(rows, digits=0):
    sizes = list(dict.fromkeys(row["sessions"] for row in rows))
    unit = "ns" if "ns" in rows[0] else "us"
    cells = [[way, *(number(row[unit], digits) for row in rows if row["way"] == way)]
             for way in dict.fromkeys(row["way"] for row in rows)]
    return table(["", *(f"{number(size)} sessions:" for size in sizes)], cells)


def streams_page(rows):
    return table(["", "", "ns:"], [[row["what"], row["way"], row["ns"]] for row in rows])


def memory_page(measured):
    who = {"anonymous": "anonymous", "shared": "ten to a principal", "distinct": "each its own principal"}
    return "\n\n".join([
        table(["1,000,000 sessions", "bytes requested of the allocator:", "bytes resident:"],
              [[who[row["who"]], number(row["requested"]), number(row["resident"])] for row in measured["sessions"]]),
        table(["10,000 open streams", "bytes requested of the allocator, each:"],
              [[row["way"], number(row["bytes"])] for row in measured["streams"]]),
    ])


def sockets_page(rows):
    cells = []
    for bare, layer in zip(rows[::2], rows[1::2]):
        without, with_layer = float(bare["bytes"]), float(layer["bytes"])
        cells.append([f"a {bare['what']}", number(bare["authorization"]), number(without), number(with_layer),
                      signed(with_layer - without)])
    return table(["", "bytes of `Authorization`:", "resident without the layer:", "with it:", "difference:"], cells)


def stores_page(tables):
    return "\n\n".join(text.strip() for text in tables.values())


SECTIONS = {
    "requests": (requests, requests_page),
    "growth": (growth, growth_page),
    "peers": (peers, requests_page),
    "rmcp": (rmcp, rmcp_page),
    "lookups": (lookups, by_size),
    "creations": (creations, lambda rows: by_size(rows, 2)),
    "streams": (streams, streams_page),
    "memory": (memory, memory_page),
    "sockets": (sockets, sockets_page),
    "stores": (stores, stores_page),
}


def machine_page():
    """What all this was measured with."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    lock = dict(re.findall(r'name = "(.*)"\nversion = "(.*)"', (ROOT / "Cargo.lock").read_text()))
    crates = ["axum", "tokio", "tower", "rmcp", "tower-sessions", "dashmap", "moka"]
    versions = ", ".join(f"{crate} {lock[crate]}" for crate in crates)
    rustc = " ".join(run("rustc", "--version").split()[:2])
    valgrind = run("valgrind", "--version").strip()
    return (f"{cpu[1].strip() if cpu else platform.machine()}, {os.cpu_count()} processors, {platform.system()}; {rustc}, "
            f"release profile with thin LTO, {' '.join(platform.libc_ver())}; {valgrind}; {versions}.")


def fill(page, name, text):
    """Puts text between the page's two marks of this name."""
    marks = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
    if not marks.search(page):
        sys.exit(f"{PAGE.name} has no place for {name}")
    return marks.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page)


# Plots


COLOURS = ["#3b6fb6", "#c8553d", "#5a9367", "#8e6bbf", "#b58a2c", "#4d9db0", "#a3527c", "#777777"]


def svg(width, height, title, shapes):
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12" fill="#222">',
        f"<title>{escaped(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        text(16, 24, title, size=14, weight="bold"),
        *shapes,
        "</svg>",
    ]) + "\n"


def escaped(words):
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def text(x, y, words, anchor="start", size=12, weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}">'
            f"{escaped(words)}</text>")


def bars(title, groups):
    """Each group has a heading and bars: a name and a number each. One scale for all."""
    left, right, line = 250, 90, 22
    longest = max(value for _, rows in groups for _, value in rows)
    width, y, shapes = 760, 44, []
    for colour, (heading, rows) in zip(COLOURS, groups):
        shapes.append(text(16, y + 15, heading, weight="bold"))
        y += line
        for name, value in rows:
            long = max(value, 0) / longest * (width - left - right)
            shapes += [
                text(left - 8, y + 15, name, anchor="end"),
                f'<rect x="{left}" y="{y + 3}" width="{long:.1f}" height="16" fill="{colour}"/>',
                text(left + long + 6, y + 15, number(value)),
            ]
            y += line
        y += 8
    return svg(width, y + 8, title, shapes)


def lines(title, unit, curves):
    """Each curve is a name and points. Both axes are logarithmic."""
    width, height, left, right, top, bottom = 800, 400, 76, 290, 48, 44
    points = [point for _, curve in curves for point in curve]
    xs, ys = ([math.log10(point[axis]) for point in points] for axis in (0, 1))
    low, high = math.floor(min(ys)), math.ceil(max(ys))

    def place(x, y):
        across = (math.log10(x) - min(xs)) / (max(xs) - min(xs))
        up = (math.log10(y) - low) / (high - low)
        return left + across * (width - left - right), height - bottom - up * (height - top - bottom)

    shapes = []
    for power in range(low, high + 1):
        _, y = place(points[0][0], 10**power)
        shapes += [f'<path d="M{left} {y:.1f}H{width - right}" stroke="#ddd"/>',
                   text(left - 8, y + 4, f"{number(10**power)} {unit}", anchor="end")]
    for x in sorted({point[0] for point in points}):
        shapes.append(text(place(x, 10**low)[0], height - bottom + 20, number(x), anchor="middle"))
    shapes.append(text((left + width - right) / 2, height - 8, "live sessions", anchor="middle"))
    free = top
    for colour, (name, curve) in sorted(zip(COLOURS, curves), key=lambda one: -one[1][1][-1][1]):
        placed = [place(*point) for point in curve]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
        shapes.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        shapes += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        x, y = placed[-1]
        free = max(free, y)
        shapes += [f'<path d="M{x + 5:.1f} {y:.1f}L{x + 20:.1f} {free:.1f}" stroke="{colour}"/>',
                   text(x + 24, free + 4, f"{name}: {number(curve[-1][1])} {unit}")]
        free += 16
    return svg(width, height, title, shapes)


def plots(measured):
    """Each plot whose numbers are there, by its file's name."""
    if {"peers", "requests"} <= measured.keys():
        net = lambda request: [(row["service"].replace("memory", "this layer"), row["of"][0] - row["base"][0])
                               for row in measured["peers"] if row["request"] == request]
        yield "performance-requests.svg", bars("Instructions of a request, over a layer that does nothing", [
            ("live: let in, and kept alive", net("live")), ("dead: told 404, body of 200 bytes", net("dead")),
        ])
    if "lookups" in measured:
        rows = measured["lookups"]
        yield "performance-touch.svg", lines("Finding a session and keeping it alive", "ns", [
            (way, [(int(row["sessions"]), float(row["ns"])) for row in rows if row["way"] == way])
            for way in dict.fromkeys(row["way"] for row in rows)
        ])
    if {"memory", "sockets"} <= measured.keys():
        kept = {row["who"]: float(row["requested"]) for row in measured["memory"]["sessions"]}
        bytes_of = [float(row["bytes"]) for row in measured["sockets"] if row["what"] == "session"]
        yield "performance-bytes.svg", bars("Bytes that a session keeps", [
            ("of a million, in one process", [
                ("anonymous", kept["anonymous"]), ("ten to a principal", kept["shared"]),
                ("each its own principal", kept["distinct"])]),
            ("resident, over real sockets", [
                ("with the layer", bytes_of[1]), ("without", bytes_of[0]),
                ("with it, 1,500 bytes of Authorization", bytes_of[3]), ("without", bytes_of[2])]),
        ])


def report(names):
    measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
    for name in names or SECTIONS:
        measure, page_of = SECTIONS[name]
        print(f"\n## {name}\n", flush=True)
        measured[name] = measure()
        MEASURED.write_text(json.dumps(measured, indent=1))
        print(page_of(measured[name]), flush=True)
        write({name: measured[name]})
    for name, plot in plots(measured):
        (PAGE.parent / name).write_text(plot)


def write(measured):
    """Puts these sections into the page."""
    page = fill(PAGE.read_text(), "machine", machine_page())
    for name, result in measured.items():
        page = fill(page, name, SECTIONS[name][1](result))
    PAGE.write_text(page)


# Limits


MAIN_PATHS = [
    ("memory", "live", "handin+timer"), ("memory", "json", "handin+timer"), ("memory", "principal", "handin+timer"),
    ("async", "live", "handin+timer"), ("memory", "dead", "noop"), ("memory", "dead64k", "noop"),
    ("memory", "modern", "noop+timer"), ("memory", "unguarded", "noop"), ("layer+rmcp", "ping", "handin+timer+rmcp"),
]
FEW, MANY = ("memory", "live@100"), ("memory", "live@100000")
# Where a session that is somebody else's may cost so much more or less than one that does not exist, and no more.
STRANGERS = ["memory", "claims", "signed", "async", "cached", "uncached"]
APART = 1.10


def limits(records):
    paths = MAIN_PATHS
    known = {}
    if not records:
        known = {tuple(line.split("\t")[:3]): [float(limit) for limit in line.split("\t")[3:]]
                 for line in LIMITS.read_text().splitlines()[1:]}
        paths = list(known)
    ends = [FEW, MANY]
    costs = cost([(name, request) for service, request, base in paths for name in (service, base)] + ends)

    def net(service, request, base):
        return [one - other for one, other in zip(costs[service, request], costs[base, request])]

    # A run now and then has more to do in the background. What has passed its limit is measured once more.
    again = [path for path in paths if path in known and net(*path)[0] > known[path][0]]
    again = [(service, request) for service, request, _ in again]
    again += ends if costs[MANY][0] > costs[FEW][0] * GROWTH else []
    costs |= {which: [min(both) for both in zip(costs[which], counted)] for which, counted in cost(again).items()}
    failed, lines, cells = [], ["service\trequest\tbeside\tmost Ir\tmost allocations"], []
    for service, request, base in paths:
        counted = net(service, request, base)
        # An allocation now and then is not one for each request.
        most = known.get((service, request, base)) or [math.ceil(counted[0] * ROOM + 5), round(counted[1]) + 0.1]
        lines.append(f"{service}\t{request}\t{base}\t{most[0]}\t{most[1]}")
        cells.append([service, request, base, number(counted[0]), number(most[0]), number(counted[1], 2),
                      number(most[1], 2)])
        if counted[0] > most[0] or counted[1] > most[1]:
            failed.append(f"{service}, {request}: {counted[0]:,.0f} Ir and {counted[1]:.2f} allocations over {base}, "
                          f"but {most[0]:,.0f} and {most[1]:.2f} are the most there may be")
    print(table(["service", "request", "beside", "net Ir:", "most:", "net allocations:", "most:"], cells))
    few, many = costs[FEW][0], costs[MANY][0]
    print(f"\nA request among 100 sessions: {few:,.0f} Ir; among 100,000: {many:,.0f}, ratio {many / few:.3f}")
    if many > few * GROWTH:
        failed.append(f"a request among 100,000 sessions costs {many / few:.3f} times as much as among 100, "
                      f"but {GROWTH} is the most")
    failed += strangers()
    if records:
        LIMITS.write_text("\n".join(lines) + "\n")
    for failure in failed:
        print(f"passed a limit: {failure}", file=sys.stderr)
    sys.exit(bool(failed))


def strangers():
    """Measures what a foreign session costs beside one that does not exist, and says where that tells them apart."""
    ways = [(service, request) for service in [*STRANGERS, "noop"] for request in ("unknown", "foreign")]
    costs = cost(ways)
    failed, cells = [], []
    for service in STRANGERS:
        both = ("unknown", "foreign")
        unknown, foreign = (costs[service, which][0] - costs["noop", which][0] for which in both)
        ratio = foreign / unknown
        cells.append([service, number(unknown), number(foreign), f"{ratio:.3f}"])
        if not 1 / APART <= ratio <= APART:
            failed.append(f"{service}: a foreign session costs {ratio:.3f} times as much as an unknown one, "
                          f"but {APART} is the most")
    print("\n" + table(["service", "unknown, net Ir:", "foreign, net Ir:", "ratio:"], cells))
    return failed


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--check"]:
            limits(records=False)
        case ["--record"]:
            limits(records=True)
        case names if set(names) <= SECTIONS.keys():
            report(names)
        case _:
            sys.exit(__doc__)
