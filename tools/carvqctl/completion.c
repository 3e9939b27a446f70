/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carvqctl completion: the script for bash, made from the tables of verbs and options, and the
 * names of tables that it asks for.
 */
#include <stdio.h>
#include <string.h>

#include "carvqctl.h"
#include "format.h"

#define QUIET_TIMEOUT_S 1 /* someone has pressed Tab */

/* The script needs no other one. COMP_WORDBREAKS makes --name=value three words. */
static const char script_head[] =
        "# bash completion for carvqctl; made by: carvqctl completion bash\n"
        "\n"
        "_carvqctl() {\n"
        "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}\n"
        "    local verb= n=0 i options words= control=()\n"
        "    COMPREPLY=()\n"
        "    [[ $word == '=' ]] && word=\n"
        "    [[ $before == '=' ]] && before=${COMP_WORDS[COMP_CWORD - 2]}\n"
        "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
        "        case ${COMP_WORDS[i]} in\n";

static const char script_middle[] =
        "            [[ ${COMP_WORDS[i + 1]} == '=' ]] && ((i++))\n"
        "            [[ ${COMP_WORDS[i]} == --control || ${COMP_WORDS[i - 1]} == --control ]] &&\n"
        "                control=(--control \"${COMP_WORDS[i + 1]}\")\n"
        "            ((i++)) ;;\n"
        "        '=') ((i++)) ;;\n"
        "        -*) ;;\n"
        "        *) if [[ $verb ]]; then ((n++)); else verb=${COMP_WORDS[i]}; fi ;;\n"
        "        esac\n"
        "    done\n"
        "    case $before in\n"
        "    --control | --socket | --output | --svg | -o)\n"
        "        compopt -o filenames 2>/dev/null\n"
        "        COMPREPLY=($(compgen -f -- \"$word\"))\n"
        "        return ;;\n"
        "    --format) COMPREPLY=($(compgen -W 'text json npy' -- \"$word\")); return ;;\n"
        "    --against) COMPREPLY=($(compgen -W 'f32 f16 bf16' -- \"$word\")); return ;;\n"
        "    --interval | --watch) [[ ${COMP_WORDS[COMP_CWORD - 1]} == '=' ]] && return ;;\n"
        "    esac\n"
        "    options='";

static const char script_tail[] =
        "    esac\n"
        "    case $word,$verb,$n in\n"
        "    -*) words=$options ;;\n"
        "    *,stats,0 | *,bench,0 | *,lookup,0 | *,unload,0 | *,load,0)\n"
        "        words=$(\"${COMP_WORDS[0]}\" \"${control[@]}\" completion tables 2>/dev/null) ;;\n"
        "    *,load,1)\n"
        "        compopt -o filenames 2>/dev/null\n"
        "        COMPREPLY=($(compgen -f -- \"$word\"))\n"
        "        return ;;\n"
        "    *,completion,0) words='bash tables' ;;\n"
        "    esac\n"
        "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
        "}\n"
        "\n"
        "complete -F _carvqctl carvqctl\n";

static void print_options(const char *keys, const char *separator) {
        bool any = false;

        for (const struct option *o = long_options; o->name; o++)
                if (strchr(keys, o->val)) {
                        printf("%s--%s", any ? separator : "", o->name);
                        any = true;
                }
}

/* Those whose value is the next word. */
static void print_valued_options(void) {
        fputs("        -o", stdout);
        for (const struct option *o = long_options; o->name; o++)
                if (o->has_arg == required_argument)
                        printf(" | --%s", o->name);
        puts(")");
}

static void print_script(void) {
        fputs(script_head, stdout);
        print_valued_options();
        fputs(script_middle, stdout);
        print_options(COMMON_OPTIONS, " ");
        puts("'\n    case $verb in");
        fputs("    '') words='", stdout);
        for (const struct verb *v = verbs; v->name; v++)
                printf("%s%s", v == verbs ? "" : " ", v->name);
        puts("' ;;");
        for (const struct verb *v = verbs; v->name; v++)
                if (*v->options) {
                        printf("    %s) options+=' ", v->name);
                        print_options(v->options, " ");
                        puts("' ;;");
                }
        fputs(script_tail, stdout);
}

static int print_names(const struct carvqctl *ctl) {
        _cleanup_(json_decrefp) json_t *reply = NULL;
        struct fault fault = { 0 };
        const json_t *table;
        size_t i;
        int r;

        r = control_try(ctl, "ListTables", NULL, QUIET_TIMEOUT_S, &reply, &fault);
        if (r != EXIT_OK) {
                complain("%s", fault.text);
                return r;
        }
        json_array_foreach(field(reply, "tables"), i, table) if (field_true(table, "is_published"))
                puts(field_text(table, "name"));
        return EXIT_OK;
}

int verb_completion(const struct carvqctl *ctl) {
        if (!strcmp(ctl->arguments[0], "tables"))
                return print_names(ctl);
        if (strcmp(ctl->arguments[0], "bash")) {
                complain("completion: '%s' is not known, expected bash or tables",
                         ctl->arguments[0]);
                return EXIT_USAGE;
        }
        print_script();
        return EXIT_OK;
}
