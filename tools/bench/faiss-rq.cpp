/* SPDX-License-Identifier: Apache-2.0 */
#include "faiss-rq.h"

#include <faiss/Index.h>
#include <faiss/impl/ResidualQuantizer.h>
#include <omp.h>

#include <cstdio>
#include <random>
#include <vector>

struct faiss_rq {
        faiss::ResidualQuantizer quantizer;
};

extern "C" struct faiss_rq *faiss_rq_new(size_t n_dims, size_t n_stages, size_t bits,
                                         size_t n_train) {
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        std::vector<float> values(n_train * n_dims);

        omp_set_num_threads(1);
        for (float &v : values)
                v = normal(random);
        try {
                auto *rq = new faiss_rq{ faiss::ResidualQuantizer(n_dims, n_stages, bits) };

                rq->quantizer.train(n_train, values.data());
                return rq;
        } catch (const std::exception &e) {
                std::fprintf(stderr, "Faiss: %s\n", e.what());
                return nullptr;
        }
}

extern "C" void faiss_rq_free(struct faiss_rq *rq) {
        delete rq;
}

extern "C" size_t faiss_rq_code_bytes(const struct faiss_rq *rq) {
        return rq->quantizer.code_size;
}

extern "C" void faiss_rq_decode(const struct faiss_rq *rq, const uint8_t *codes, size_t n_vectors,
                                float *ret_values) {
        rq->quantizer.decode(codes, ret_values, n_vectors);
}

#define TEXT(x)          #x
#define VERSION(a, b, c) TEXT(a) "." TEXT(b) "." TEXT(c)

extern "C" const char *faiss_rq_version(void) {
        return VERSION(FAISS_VERSION_MAJOR, FAISS_VERSION_MINOR, FAISS_VERSION_PATCH);
}
