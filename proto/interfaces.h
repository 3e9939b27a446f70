/* SPDX-License-Identifier: Apache-2.0 */
/* The .varlink files of this folder as strings, made by the build. */
#pragma once

extern const char interface_control[]; /* io.carvq.Control.varlink */
extern const char interface_service[]; /* org.varlink.service.varlink */
