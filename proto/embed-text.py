# SPDX-License-Identifier: Apache-2.0
"""Writes a C source file that holds a text file's bytes: embed-text.py TEXT NAME OUTPUT.c

An array of numbers, because compilers need not take string literals of more than 4095 characters.
"""
import sys

text_path, name, output_path = sys.argv[1:]
with open(text_path, "rb") as f:
    text = f.read() + b"\0"
with open(output_path, "w") as f:
    f.write(f"extern const char {name}[];\nconst char {name}[] = {{\n")
    for i in range(0, len(text), 16):
        f.write("".join(f"{byte}," for byte in text[i : i + 16]) + "\n")
    f.write("};\n")
