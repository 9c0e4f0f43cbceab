/* What TensorRT's Python bindings link against, doing nothing: enough to import them where no TensorRT is.

   One source, three libraries: the compiler is told which of them by CORE, PLUGIN or PARSER. Whatever would
   make an object returns null, which the bindings turn into a Python exception. */
#include <stddef.h>

#ifdef CORE
void *createInferBuilder_INTERNAL(void *logger, int version) { return NULL; }
void *createInferRefitter_INTERNAL(void *engine, void *logger, int version) { return NULL; }
void *createInferRuntime_INTERNAL(void *logger, int version) { return NULL; }
void *getBuilderPluginRegistry(int capability) { return NULL; }
void *getPluginRegistry(void) { return NULL; }
#endif

#ifdef PLUGIN
int initLibNvInferPlugins(void *logger, const char *space) { return 0; }
#endif

#ifdef PARSER
void *createNvOnnxParser_INTERNAL(void *network, void *logger, int version) { return NULL; }
void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int version) { return NULL; }
int getNvOnnxParserVersion(void) { return 0; }
#endif
