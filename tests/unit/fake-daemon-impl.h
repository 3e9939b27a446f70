/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the fake daemon share. */
#pragma once

#include "fake-daemon.h"

/* `fd` goes along `n_fds` times. */
void fake_send(struct fake_daemon *f, const void *message, size_t bytes, int fd, size_t n_fds);
void fake_error(struct fake_daemon *f, uint32_t status, const char *text);
/* Waits; the message's type, 0 at the end. */
int fake_receive(struct fake_daemon *f, uint8_t buffer[WIRE_MESSAGE_BYTES], int *ret_fd);
/* Nothing more comes from here; the client must find a way out by itself. */
void fake_be_silent(struct fake_daemon *f);

/* A message of a client that is ready; false: the connection ends. */
bool fake_on_message(struct fake_daemon *f);
