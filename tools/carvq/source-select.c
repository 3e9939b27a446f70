/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which tensor of a model is the embedding: by name, or by the names that models give it. The names
 * come from the tensor maps of transformers checkpoints and of llama.cpp's converter. Runs on the
 * thread that opened the source.
 */
#include "source-impl.h"

#include <stdio.h>
#include <string.h>

#define CANDIDATES_MAX 16u
#define NEAR_MAX       4u

/* Ends of names, matched whole or after a dot. */
static const char *const embedding_names[] = {
        "embed_tokens.weight",           /* llama, mistral, qwen, gemma, bart, opt */
        "embed_tokens_per_layer.weight", /* gemma 3n */
        "token_embd.weight",             /* GGUF */
        "per_layer_token_embd.weight",   /* GGUF, gemma 3n */
        "word_embeddings.weight",        /* bert, bloom, falcon, chatglm */
        "word_embedding.weight",         /* xlnet */
        "tok_embeddings.weight",         /* llama and mistral originals, internlm2, modernbert */
        "token_embeddings.weight",       /* openelm */
        "token_embedding.weight",        /* clip, whisper */
        "wte.weight",                    /* gpt2, gpt-j, mpt, dbrx, olmo */
        "embed_in.weight",               /* gpt-neox */
        "in_out_embed.weight",           /* grok */
        "shared.weight",                 /* t5, bart */
        "embeddings.weight",             /* mamba, rwkv, xlm */
        "embedding.weight",              /* mamba, static embeddings, n-gram tables */
        "embed.weight",                  /* deepseek originals */
        "emb.weight",                    /* rwkv */
        "embeddings",                    /* model2vec */
};

/* What a generic end such as "embedding.weight" must not catch. */
static const char *const other_embeddings[] = { "position", "pos_emb", "token_type", "segment" };

static bool ends_with_component(const char *name, const char *end) {
        size_t name_bytes = strlen(name), end_bytes = strlen(end);

        return name_bytes >= end_bytes && !strcmp(name + name_bytes - end_bytes, end) &&
               (name_bytes == end_bytes || name[name_bytes - end_bytes - 1] == '.');
}

static bool is_embedding_name(const char *name) {
        for (size_t i = 0; i < ARRAY_SIZE(other_embeddings); i++)
                if (strcasestr(name, other_embeddings[i]))
                        return false;
        for (size_t i = 0; i < ARRAY_SIZE(embedding_names); i++)
                if (ends_with_component(name, embedding_names[i]))
                        return true;
        return false;
}

/* A part of a name, or a name with one place mistyped: what is left between the ends is short. */
static bool is_near(const char *name, const char *wanted) {
        size_t name_bytes = strlen(name), wanted_bytes = strlen(wanted), n_head = 0, n_tail = 0;
        size_t shorter = MIN(name_bytes, wanted_bytes), longer = MAX(name_bytes, wanted_bytes);

        if (!wanted_bytes)
                return false;
        if (strcasestr(name, wanted) || ends_with_component(wanted, name))
                return true;
        while (n_head < shorter && name[n_head] == wanted[n_head])
                n_head++;
        while (n_tail < shorter - n_head &&
               name[name_bytes - 1 - n_tail] == wanted[wanted_bytes - 1 - n_tail])
                n_tail++;
        return shorter > 4 && longer - n_head - n_tail <= 3;
}

static int refuse_unreadable(const struct source *source, const struct tensor *t,
                             struct fault *ret_fault) {
        const char *path = source->files[t->file].path, *name = t->info.name;

        if (t->n_axes != 2)
                return source_fault(ret_fault, -EOPNOTSUPP, path,
                                    "tensor '%.80s' has %" PRIu32
                                    " axes, expected 2 (rows, dimensions)",
                                    name, t->n_axes);
        if (!t->dtype->decode)
                return source_fault(ret_fault, -EOPNOTSUPP, path,
                                    "tensor '%.80s' is of type %s, expected F32, F16, BF16, Q8_0,"
                                    " Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K",
                                    name, t->info.dtype);
        return source_fault(ret_fault, -EOPNOTSUPP, path,
                            "tensor '%.80s' is empty or its rows are longer than %u values", name,
                            SOURCE_DIMS_MAX);
}

/* ", 'a', 'b'" onto a sentence. */
static void append_name(char *text, size_t text_bytes, const char *name) {
        size_t n = strlen(text);

        snprintf(text + n, text_bytes - n, "%s'%.60s'", n ? ", " : "", name);
}

static int refuse_unknown(const struct source *source, const char *name, struct fault *ret_fault) {
        char near[160] = "";
        size_t n_near = 0;

        for (size_t i = 0; i < source->n_readable && n_near < NEAR_MAX; i++)
                if (is_near(source->list.tensors[i].info.name, name)) {
                        append_name(near, sizeof(near), source->list.tensors[i].info.name);
                        n_near++;
                }
        return source_fault(ret_fault, -ENOENT, source->files[0].path,
                            "no tensor '%.80s' among %zu%s%s", name, source->list.n_tensors,
                            n_near ? "; near it: " : "", near);
}

static int select_by_name(struct source *source, const char *name, struct fault *ret_fault) {
        for (size_t i = 0; i < source->list.n_tensors; i++) {
                const struct tensor *t = &source->list.tensors[i];

                if (strcmp(t->info.name, name) != 0)
                        continue;
                if (!tensor_is_readable(t))
                        return refuse_unreadable(source, t, ret_fault);
                source->selected = t;
                return 0;
        }
        return refuse_unknown(source, name, ret_fault);
}

static int refuse_several(const struct source *source, const size_t *candidates, size_t n_found,
                          struct fault *ret_fault) {
        char names[160] = "";

        for (size_t i = 0; i < MIN(n_found, NEAR_MAX); i++)
                append_name(names, sizeof(names), source->list.tensors[candidates[i]].info.name);
        return source_fault(ret_fault, -ENOTUNIQ, source->files[0].path,
                            "%zu tensors may be the embedding, name one: %s%s", n_found, names,
                            n_found > NEAR_MAX ? " ..." : "");
}

/* No name fits. An embedding that we cannot read must not be replaced by something else. */
static int select_only(struct source *source, struct fault *ret_fault) {
        for (size_t i = source->n_readable; i < source->list.n_tensors; i++)
                if (is_embedding_name(source->list.tensors[i].info.name))
                        return refuse_unreadable(source, &source->list.tensors[i], ret_fault);
        if (source->n_readable != 1)
                return source_fault(ret_fault, -ENOENT, source->files[0].path,
                                    "%zu tensors can be read, none has the name of an embedding;"
                                    " name one",
                                    source->n_readable);
        source->selected = &source->list.tensors[0];
        return 0;
}

int source_select(struct source *source, const char *name, size_t ret_candidates[16],
                  size_t *ret_n_candidates, struct fault *ret_fault) {
        size_t candidates[CANDIDATES_MAX], n_found = 0;

        source->selected = NULL;
        if (name)
                return select_by_name(source, name, ret_fault);
        for (size_t i = 0; i < source->n_readable; i++)
                if (is_embedding_name(source->list.tensors[i].info.name)) {
                        if (n_found < CANDIDATES_MAX)
                                candidates[n_found] = i;
                        n_found++;
                }
        if (!n_found)
                return select_only(source, ret_fault);
        if (n_found > 1) {
                *ret_n_candidates = MIN(n_found, CANDIDATES_MAX);
                memcpy(ret_candidates, candidates, *ret_n_candidates * sizeof(*candidates));
                return refuse_several(source, candidates, n_found, ret_fault);
        }
        source->selected = &source->list.tensors[candidates[0]];
        return 0;
}
