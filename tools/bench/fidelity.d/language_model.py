# SPDX-License-Identifier: Apache-2.0
"""
A GGUF model whose input embeddings can be replaced: rows are fed through llama_batch.embd, while
the rest of the model, the tied output matrix included, stays as it is in the file. One context,
used by one thread; llama.cpp's own threads compute.
"""

import ctypes
import time

import llama_cpp
import numpy as np

# A window is BOS and WINDOW tokens of text. The first CONTEXT tokens are read but not scored, so
# that no score depends on a nearly empty context.
WINDOW = 512
CONTEXT = 64


@llama_cpp.llama_log_callback
def quiet(level, text, userdata):
    del level, text, userdata


class Model:
    def __init__(self, path, n_threads):
        llama_cpp.llama_log_set(quiet, None)
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"{path}: llama.cpp cannot load it")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.n_dims = llama_cpp.llama_model_n_embd(self.model)
        self.bos = llama_cpp.llama_vocab_bos(self.vocab)
        self.context = self.new_context(n_threads)
        self.tokens_per_s = 0.0

    def new_context(self, n_threads):
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = params.n_outputs_max = WINDOW
        params.n_threads = params.n_threads_batch = n_threads
        context = llama_cpp.llama_init_from_model(self.model, params)
        if not context:
            raise SystemExit("llama.cpp cannot make a context")
        return context

    def tokenize(self, text):
        """Token ids without BOS; what looks like a special token in the text is text."""
        data = text.encode()
        ids = (llama_cpp.llama_token * len(data))()
        n = llama_cpp.llama_tokenize(self.vocab, data, len(data), ids, len(data), False, False)
        if n < 0:
            raise SystemExit(f"llama_tokenize: {-n} tokens of {len(data)} bytes")
        return np.ctypeslib.as_array(ids)[:n].copy()

    def scaled(self, rows):
        """
        Rows of the table as the model wants its input. llama.cpp multiplies what it looks up itself
        by sqrt(n_dims), but takes embeddings as already scaled (src/models/gemma3.cpp:
        `ubatch.token ? sqrtf(n_embd) : 1.0f`).
        """
        return rows * np.sqrt(np.float32(self.n_dims))

    def windows(self, tokens, n_scored):
        """
        As many windows as score at least n_scored tokens, BOS before each, spread evenly over the
        whole text: a text's beginning alone is seldom like the rest of it.
        """
        n = -(-n_scored // (WINDOW - CONTEXT))
        if n * WINDOW > len(tokens):
            raise SystemExit(
                f"the text has {len(tokens)} tokens, fewer than {n} windows of {WINDOW} need")
        starts = np.linspace(0, len(tokens) - WINDOW, n).astype(int)
        return np.stack([np.concatenate(([self.bos], tokens[s:s + WINDOW])) for s in starts])

    def nll(self, windows, rows=None):
        """
        Negative log-likelihood, in nats, of the scored tokens: [windows][WINDOW - CONTEXT]. With
        rows (ids -> f32 rows, scaled) they go in as embeddings, else as token ids.
        """
        out = np.empty((len(windows), WINDOW - CONTEXT))
        began = time.monotonic()
        for i, window in enumerate(windows):
            out[i] = self.score(window, None if rows is None else rows(window[:-1]))
        self.tokens_per_s = windows[:, 1:].size / (time.monotonic() - began)
        return out

    def score(self, window, embeddings):
        self.decode(window[:-1], embeddings)
        logits = np.ctypeslib.as_array(
            llama_cpp.llama_get_logits(self.context), (WINDOW - CONTEXT, self.n_vocab))
        nll = np.empty(WINDOW - CONTEXT)
        for i, (row, target) in enumerate(zip(logits, window[CONTEXT + 1:])):
            top = row.max()
            nll[i] = np.log(np.exp(row - top).sum(dtype=np.float64)) + float(top - row[target])
        return nll

    def decode(self, ids, embeddings):
        """One window through the model; logits are kept for positions from CONTEXT on."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        batch = llama_cpp.llama_batch_init(WINDOW, 0 if embeddings is None else self.n_dims, 1)
        try:
            batch.n_tokens = WINDOW
            if embeddings is None:
                np.ctypeslib.as_array(batch.token, (WINDOW,))[:] = ids
            else:
                np.ctypeslib.as_array(batch.embd, embeddings.shape)[:] = embeddings
            np.ctypeslib.as_array(batch.pos, (WINDOW,))[:] = np.arange(WINDOW)
            np.ctypeslib.as_array(batch.n_seq_id, (WINDOW,))[:] = 1
            np.ctypeslib.as_array(batch.logits, (WINDOW,))[:] = np.arange(WINDOW) >= CONTEXT
            for i in range(WINDOW):
                batch.seq_id[i][0] = 0
            r = llama_cpp.llama_decode(self.context, batch)
            if r:
                raise SystemExit(f"llama_decode: {r}")
        finally:
            llama_cpp.llama_batch_free(batch)


def perplexity(nll):
    return float(np.exp(nll.mean()))


def ratio(nll, reference):
    """
    Perplexity over the reference's, and its standard error. Both see the same tokens, so the error
    is that of the difference, and neighbouring tokens are not independent: windows are the samples.
    """
    difference = (nll - reference).mean(axis=1)
    value = float(np.exp(difference.mean()))
    return value, value * float(difference.std(ddof=1) / np.sqrt(len(difference)))
