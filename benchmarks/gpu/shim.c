/* Replaces libcublas.so.11, libcublasLt.so.11 and libcudnn.so.8, which TensorRT 8.5 links: it passes the functions that
   the plugins link to the cuBLAS 13 of the machine (KIT_CUBLAS names the file) and refuses the others. fetch.py compiles
   it three times, with -DNAMES=... the list of functions and -DREFUSED=... the status that means "not supported". */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static int refuse(void) { return REFUSED; }

#define ONE(name)                                                                          \
    __attribute__((visibility("hidden"), used)) void *to_##name = (void *)refuse;          \
    __asm__(".globl " #name "\n.type " #name ",@function\n" #name ": jmp *to_" #name "(%rip)\n");
NAMES
#undef ONE

__attribute__((constructor)) static void find(void) {
    const char *path = getenv(LIBRARY);
    void *library = path && *path ? dlopen(path, RTLD_NOW | RTLD_GLOBAL) : NULL, *found;
    if (path && *path && !library) fprintf(stderr, "shim: %s\n", dlerror());
    if (!library) return;
#define ONE(name) if ((found = dlsym(library, #name))) to_##name = found;
    NAMES
#undef ONE
}
