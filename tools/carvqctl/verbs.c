/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verbs and options of carvqctl, and what --help says of them. Completion is made from these
 * tables, and tests hold the manual against them.
 */
#include "carvqctl.h"

const struct option long_options[] = {
        { "against", required_argument, NULL, 'a' },  { "batch", required_argument, NULL, 'b' },
        { "cold", no_argument, NULL, 'C' },           { "control", required_argument, NULL, 'c' },
        { "format", required_argument, NULL, 'f' },   { "help", no_argument, NULL, 'h' },
        { "interval", required_argument, NULL, 'i' }, { "json", no_argument, NULL, 'j' },
        { "openmetrics", no_argument, NULL, 'm' },    { "output", required_argument, NULL, 'o' },
        { "prometheus", no_argument, NULL, 'p' },     { "seconds", required_argument, NULL, 'S' },
        { "svg", required_argument, NULL, 'g' },      { "socket", required_argument, NULL, 's' },
        { "traffic", no_argument, NULL, 'T' },        { "version", no_argument, NULL, 'v' },
        { "watch", optional_argument, NULL, 'w' },    { 0 },
};

const char general_help[] =
        "Usage: carvqctl [OPTION]... VERB [ARGUMENT]...\n"
        "Inspect and steer carvqd, the server of compressed embedding tables.\n"
        "\n"
        "  status             the daemon as a whole\n"
        "  tables             what is served, and the memory it takes\n"
        "  clients            who is connected\n"
        "  stats [TABLE]      what was served, what it cost and what that saved;\n"
        "                     --watch: by the second, --openmetrics: for a monitor\n"
        "  top                tables and clients by what they do now, on a live screen\n"
        "  lookup TABLE ID... rows by id, through shared memory like any client\n"
        "  bench TABLE        what the table saves on this machine, against f16 or f32\n"
        "  load NAME PATH     serve the .carvq file PATH as NAME, replacing an older one\n"
        "  unload NAME        serve NAME no longer; who has it open keeps it\n"
        "  reload             read the configuration and the folder of tables again, wait\n"
        "                     until that is done, and say what has changed\n"
        "  trace              where lookups spend their time: carvq-trace(8)\n"
        "  completion bash    a script that completes carvqctl's command lines\n"
        "  version            of carvqctl, and of carvqd where it runs\n"
        "\n"
        "  --json             print JSON with exact numbers, its keys as in carvqctl(1)\n"
        "  --socket PATH      carvqd's data socket, for lookup (default: $CARVQ_SOCKET,\n"
        "                     else carvqd.sock beside the control socket's default)\n"
        "  --control PATH     carvqd's control socket (default: $CARVQ_CONTROL, else\n"
        "                     /run/carvq/control.sock where it exists, else\n"
        "                     $XDG_RUNTIME_DIR/carvq/control.sock)\n"
        "  --help             print this, or behind a verb what there is to know of it\n"
        "  --version          print carvqctl's version and exit\n"
        "\n"
        "Figures are counted by the daemon, measured, modelled from counted ones, or\n"
        "claimed by clients, and say which. Bytes moved have three legs: read from the\n"
        "table, written as rows, read by the client.\n"
        "\n"
        "Exit status: 0 done, 1 the daemon said no or the output cannot be written, 2\n"
        "wrong usage, 3 the daemon cannot be reached.\n";

static const char status_help[] =
        "Usage: carvqctl status [--json]\n"
        "The daemon as a whole: what it is, what it serves, its limits.\n";

static const char tables_help[] =
        "Usage: carvqctl tables [--json]\n"
        "What is served, and the memory it takes beside that of the same in 16 bits.\n";

static const char clients_help[] = "Usage: carvqctl clients [--json]\n"
                                   "Who is connected. CLIENT is what a client calls itself.\n";

static const char stats_help[] =
        "Usage: carvqctl stats [TABLE] [OPTION]...\n"
        "What was served, what it cost and what that saved: of one table, or of all\n"
        "tables and clients. Counters start at 0 when a table is loaded or a client\n"
        "connects.\n"
        "\n"
        "  --watch[=S]        again and again, every S seconds (default: 1), with rates\n"
        "                     beside the totals; q or Ctrl-C ends it. On a terminal in\n"
        "                     place, else one block after another\n"
        "  --json             print JSON; with --watch one object a line\n"
        "  --openmetrics      print OpenMetrics text, for a monitor\n"
        "  --prometheus       print the older text format of Prometheus, which textfile\n"
        "                     collectors read\n"
        "  --traffic          what memory really moves for carvqd and for the machine, by\n"
        "                     resctrl and the memory controllers, where there are such\n"
        "                     counters; wants root\n"
        "  --seconds S        of --traffic: how long to watch (default: 1)\n";

static const char top_help[] =
        "Usage: carvqctl top [OPTION]...\n"
        "Tables and clients by what they do now, on a live screen.\n"
        "\n"
        "  --interval S       seconds between two looks, 0.1 to 3600 (default: 1)\n"
        "\n"
        "Keys: t tables, c clients, Tab the other of the two, s the next column to sort\n"
        "by, q quit. A wider screen has more columns.\n";

static const char lookup_help[] =
        "Usage: carvqctl lookup TABLE ID... [OPTION]...\n"
        "Rows by id, through shared memory like any client. All ids are checked before\n"
        "a row is printed.\n"
        "\n"
        "  --format FORMAT    text (default): a row a line, the id first;\n"
        "                     json: values that are not finite are null;\n"
        "                     npy: one array of f32, a row for each id\n"
        "  --json             the same as --format json\n"
        "  -o, --output FILE  write to FILE; npy is not written to a terminal\n";

static const char bench_help[] =
        "Usage: carvqctl bench TABLE [OPTION]...\n"
        "The same random rows from the table in full precision in this process, from the\n"
        "table decoded here, and through carvqd's rings: time, and bytes by leg. Needs\n"
        "memory for the table in full precision, or takes the rows that fit into half of\n"
        "what is free.\n"
        "\n"
        "  --against TYPE     full precision: f32, f16 or bf16 (default: f16)\n"
        "  --batch N          rows of a batch, 1 to 65536 (default: 256)\n"
        "  --seconds S        for each way and kind of ids (default: 1)\n"
        "  --cold             from storage, too: with copies in $TMPDIR that the page\n"
        "                     cache is made to forget\n"
        "  --svg FILE         draw bars\n"
        "  --json             print JSON\n";

static const char load_help[] =
        "Usage: carvqctl load NAME PATH [--json]\n"
        "Serve the .carvq file PATH as NAME. If NAME is served already, this becomes its\n"
        "new generation; clients that have the older one open keep it until they open it\n"
        "again. The daemon opens the file, with its own rights.\n";

static const char unload_help[] = "Usage: carvqctl unload NAME [--json]\n"
                                  "Serve NAME no longer. Clients that have it open keep it.\n";

static const char reload_help[] =
        "Usage: carvqctl reload [--json]\n"
        "Read the configuration and the folder of tables again, as SIGHUP does, wait\n"
        "until that is done, and say what was loaded, unloaded and refused, and which\n"
        "keys need a restart. With an error in the configuration nothing changes. Exit\n"
        "status 1 where a table was refused.\n";

static const char completion_help[] =
        "Usage: carvqctl completion bash|tables\n"
        "bash: print a script that completes carvqctl's command lines, for\n"
        "      source <(carvqctl completion bash)\n"
        "tables: print the names of the tables that are served, one a line.\n";

static const char trace_help[] =
        "Usage: carvqctl trace [OPTION]...\n"
        "Runs carvq-trace, as root: where lookups spend their time, page faults and disk\n"
        "reads by table, and how long wake-ups take, seen from within the kernel. Its\n"
        "options are in carvq-trace(8); before `trace` there are none.\n";

static const char version_help[] = "Usage: carvqctl version [--json]\n"
                                   "The version of carvqctl, and that of carvqd where it runs.\n";

const struct verb verbs[] = {
        { "status", 0, 0, "j", verb_status, status_help },
        { "tables", 0, 0, "j", verb_tables, tables_help },
        { "clients", 0, 0, "j", verb_clients, clients_help },
        { "stats", 0, 1, "STjmpw", verb_stats, stats_help },
        { "top", 0, 0, "i", verb_top, top_help },
        { "lookup", 2, -1, "fjo", verb_lookup, lookup_help },
        { "bench", 1, 1, "abCSgj", verb_bench, bench_help },
        { "load", 2, 2, "j", verb_load, load_help },
        { "unload", 1, 1, "j", verb_unload, unload_help },
        { "reload", 0, 0, "j", verb_reload, reload_help },
        { "completion", 1, 1, "", verb_completion, completion_help },
        { "trace", 0, -1, "", verb_trace, trace_help },
        { "version", 0, 0, "j", verb_version, version_help },
        { 0 },
};
