/* What TensorRT's Python bindings link against, doing nothing: enough to import them where no TensorRT is.

   One source, a library for each of CORE, PLUGIN, PARSER and, for TensorRT 8, PARSERS. Whatever would
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

#ifdef PARSERS
void *_ZN11nvuffparser15createUffParserEv(void) { return NULL; }
void _ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi(void) {}
void *_ZN14nvcaffeparser117createCaffeParserEv(void) { return NULL; }
void _ZN14nvcaffeparser123shutdownProtobufLibraryEv(void) {}
#endif
