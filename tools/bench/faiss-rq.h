/* SPDX-License-Identifier: Apache-2.0 */
/* Faiss's ResidualQuantizer behind a C interface, on one thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct faiss_rq;

/* Trained on `n_train` random vectors of `n_dims`; NULL where Faiss throws. */
struct faiss_rq *faiss_rq_new(size_t n_dims, size_t n_stages, size_t bits, size_t n_train);
void faiss_rq_free(struct faiss_rq *rq);

size_t faiss_rq_code_bytes(const struct faiss_rq *rq); /* of one vector */
void faiss_rq_decode(const struct faiss_rq *rq, const uint8_t *codes, size_t n_vectors,
                     float *ret_values);

const char *faiss_rq_version(void);

#ifdef __cplusplus
}
#endif
