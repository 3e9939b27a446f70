#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
The manual against what it is about: options of each --help, keys of the configuration and their
defaults, functions of carvq.h, keys of the control interface; the example compiles, and pages
render without a warning. TAP.
  man.py SOURCE_ROOT CARVQ CARVQCTL CARVQD [PAGE]...      PAGEs are rendered ones
"""
import os, re, shutil, subprocess, sys, tempfile

root, carvq, carvqctl, carvqd = sys.argv[1:5]
pages = sys.argv[5:]
n = failed = 0


def case(name, problems, skip=None):
    global n, failed
    n += 1
    if skip:
        print(f"ok {n} - {name} # SKIP {skip}")
        return
    print(f"{'not ok' if problems else 'ok'} {n} - {name}")
    for problem in problems:
        print("#", problem)
    failed |= bool(problems)


def read(*path):
    with open(os.path.join(root, *path)) as f:
        return f.read()


def page(name):
    return read("man", name + ".scd")


def text_of(name):
    """As it is read, without marks for bold and underlined words."""
    return re.sub(r"\\(.)", r"\1", re.sub(r"(?<!\w)[*_]+|[*_]+(?!\w)", "", page(name)))


def options_in(text):
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


def help_of(*command):
    return subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout


def differences(ours, theirs, where):
    return [f"{x} is in {where[0]}, not in {where[1]}" for x in sorted(ours - theirs)] + \
           [f"{x} is in {where[1]}, not in {where[0]}" for x in sorted(theirs - ours)]


def check_options(name, helps, extra=()):
    # Where another program's options are shown they are not ours.
    text = re.sub(r"systemctl[^*]*|pkg-config[^)]*", "", page(name))
    found = set().union(*map(options_in, helps)) | set(extra)
    case(f"{name}: the options of --help", differences(options_in(text), found, (name, "--help")))


check_options("carvqd.8", [help_of(carvqd)])
check_options("carvq.1", [help_of(carvq)] + [help_of(carvq, c) for c in ("pack", "info", "eval", "unpack", "verify")])
verbs = re.findall(r"^  ([a-z]+)\b", help_of(carvqctl).split("\n\n")[1], re.M)
check_options("carvqctl.1", [help_of(carvqctl)] + [help_of(carvqctl, v) for v in verbs])
described = set(re.findall(r"^\*([a-z]+)\*", page("carvqctl.1").split("# VERBS")[1].split("# OPTIONS")[0], re.M))
case("carvqctl.1: the verbs", differences(described, set(verbs), ("carvqctl.1", "--help")))

trace = os.path.join(os.path.dirname(carvqctl), "..", "trace", "carvq-trace")
if os.access(trace, os.X_OK):
    check_options("carvq-trace.8", [help_of(trace)])
else:
    case("carvq-trace.8: the options of --help", [], "carvq-trace is not built")

# The file that is installed shows each key with its default, behind '#'.
keys, section = {}, ""
for line in read("systemd", "carvqd.conf").splitlines():
    if m := re.fullmatch(r"#? ?\[([^\]]+)\]", line):
        section = m[1]
    elif (m := re.fullmatch(r"#([a-z-]+) = (.*)", line)) and section == "carvqd":
        keys[m[1]] = m[2]
conf = text_of("carvqd.conf.5")
documented = dict.fromkeys(re.findall(r"^([a-z-]+) = [A-Z]+$", conf.split("# [table NAME]")[0], re.M))
case("carvqd.conf.5: the keys", differences(set(documented), set(keys), ("carvqd.conf.5", "carvqd.conf")))
problems = []
for key, value in keys.items():
    about = re.search(rf"^{key} = [A-Z]+\n((?:\t.*\n)+)", conf, re.M)
    about = re.sub(r"\s+", " ", about[1]) if about else ""
    if value not in about and "By default there is none" not in about:
        problems.append(f"{key}: the default {value} is not told")
case("carvqd.conf.5: the defaults", problems)
case("carvqd.conf.5: the sections", differences(
    set(re.findall(r"^# \[([^\]]+)\]", page("carvqd.conf.5"), re.M)),
    {re.sub("^table .*", "table NAME", s) for s in re.findall(r"^#?\[([^\]]+)\]", read("systemd", "carvqd.conf"), re.M)}, ("carvqd.conf.5", "carvqd.conf")))

header = re.sub(r"/\*.*?\*/", "", read("lib", "carvq.h"), flags=re.S)
library = page("libcarvq.3")
squeeze = lambda text: re.sub(r"\s+", " ", text)
prototypes = lambda text: {squeeze(p) for p in re.findall(r"^(?:int|void|const char \*) ?carvq_\w+\([^;]*\);", text, re.M)}
case("libcarvq.3: the functions", differences(
    prototypes(library), prototypes(header), ("libcarvq.3", "carvq.h")))
public = set(re.findall(r"\bCARVQ_[A-Z0-9_]+\b", header)) - {"CARVQ_H"}
for body in re.findall(r"^struct \w+ \{(.*?)^\};", header, re.M | re.S):
    public |= set(re.findall(r"(\w+);", body))
case("libcarvq.3: constants and members", [f"{w} is not told" for w in sorted(public) if not re.search(rf"\b{w}\b", text_of("libcarvq.3"))])

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "example.c")
    with open(path, "w") as f:
        f.write(library.split("# EXAMPLE\n\n```\n")[1].split("```")[0].replace("\\\\", "\\"))
    compiler = shutil.which("cc")
    r = compiler and subprocess.run([compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
                                     "-I", os.path.join(root, "lib"), path], capture_output=True, text=True)
    case("libcarvq.3: the example compiles", r.stderr.splitlines() if r and r.returncode else [],
         None if compiler else "cc is not installed")

interface = re.sub(r"#.*", "", read("proto", "io.carvq.Control.varlink"))
interface = re.sub(r"^method \w+\([^)]*\)|^error.*", "", interface, flags=re.M)
answers = set(re.findall(r"(\w+): ", interface))
told = set(re.findall(r"\w+", text_of("carvqctl.1").split("# JSON")[1].split("# METRICS")[0]))
case("carvqctl.1: the keys of JSON", [f"{k} is not told" for k in sorted(answers - told)])

for command, arguments, ignored in (
        ("man", ["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"], None),
        # scdoc's own habit, not in what it was given.
        ("mandoc", ["-T", "lint", "-W", "warning"], "skipping paragraph macro")):
    program = shutil.which(command)
    for path in pages:
        r = program and subprocess.run([program, *arguments, path], capture_output=True, text=True,
                                       env={**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": ""})
        said = (r.stderr + (r.stdout if command == "mandoc" else "")).splitlines() if r else []
        case(f"{os.path.basename(path)} renders with {command}",
             [line for line in said if not ignored or ignored not in line],
             None if program else f"{command} is not installed")
if not pages:
    case("pages render", [], "scdoc is not installed")
print(f"1..{n}")
sys.exit(failed)
