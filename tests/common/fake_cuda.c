// NVIDIA's driver and libraries for programs that must not find out that there is no GPU: memory is the host's, kernels
// and products do nothing. One file, under the names of four libraries. $FAKE_CUDA says what is different, for example
//   driver=12040 gpus=0 capability=75 memory=4096 cuMemAlloc_v2=2 cuStreamSynchronize=719@30
// values that are asked for; the status of a call; the same from its 30th time on.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long value(const char *name, long otherwise) {
  const char *set = getenv("FAKE_CUDA");
  for (size_t n = strlen(name); set && (set = strstr(set, name)); set += n)
    if (set[n] == '=') return atol(set + n + 1);
  return otherwise;
}

// The status of the next call of this name.
static int status(const char *name, long *calls) {
  const char *set = getenv("FAKE_CUDA");
  ++*calls;
  for (size_t n = strlen(name); set && (set = strstr(set, name)); set += n)
    if (set[n] == '=') {
      char *end;
      int failed = (int)strtol(set + n + 1, &end, 10);
      return *end != '@' || *calls >= atol(end + 1) ? failed : 0;
    }
  return 0;
}

#define CALL(name, arguments, ...)                    \
  int name arguments {                                \
    static long calls;                                \
    int failed = status(#name, &calls);               \
    if (failed) return failed;                        \
    __VA_ARGS__;                                      \
    return 0;                                         \
  }
// Anything that is not null.
static long something;
typedef uint64_t address;

CALL(cuInit, (unsigned flags))
CALL(cuDriverGetVersion, (int *version), *version = (int)value("driver", 13000))
CALL(cuDeviceGetCount, (int *count), *count = (int)value("gpus", 1))
CALL(cuDeviceGet, (int *device, int number), *device = number)
CALL(cuDeviceGetName, (char *name, int room, int device), snprintf(name, room, "Fake GPU"))
CALL(cuDevicePrimaryCtxRetain, (void **made, int device), *made = &something)
CALL(cuDevicePrimaryCtxRelease_v2, (int device))
CALL(cuCtxGetCurrent, (void **made), *made = &something)
CALL(cuCtxSetCurrent, (void *context))
CALL(cuCtxSynchronize, (void))
CALL(cuStreamCreate, (void **made, unsigned flags), *made = &something)
CALL(cuStreamSynchronize, (void *stream))
CALL(cuStreamWaitEvent, (void *stream, void *event, unsigned flags))
CALL(cuStreamDestroy_v2, (void *stream))
CALL(cuEventCreate, (void **made, unsigned flags), *made = &something)
CALL(cuEventRecord, (void *event, void *stream))
CALL(cuEventSynchronize, (void *event))
CALL(cuEventDestroy_v2, (void *event))
CALL(cuModuleLoadData, (void **made, void *image), *made = &something)
CALL(cuModuleGetFunction, (void **made, void *module, char *name), *made = &something)
CALL(cuLaunchKernel, (void *function))
CALL(cuMemGetInfo_v2, (size_t *bytes, size_t *all), *bytes = *all = value("memory", 80L << 30))
CALL(cuMemHostAlloc, (void **at, size_t bytes, unsigned flags), *at = malloc(bytes))
CALL(cuMemFreeHost, (void *at), free(at))
CALL(cuMemFree_v2, (address at), free((void *)at))
CALL(cuMemcpyHtoDAsync_v2, (address to, void *from, size_t n, void *stream), memcpy((void *)to, from, n))
CALL(cuMemcpyDtoHAsync_v2, (void *to, address from, size_t n, void *stream), memcpy(to, (void *)from, n))
CALL(cuMemsetD8Async, (address at, unsigned char to, size_t n, void *stream), memset((void *)at, to, n))
CALL(cuMemAlloc_v2, (address *at, size_t n), static size_t used; if ((long)(used += n) > value("memory", 80L << 30)) return 2;
     *at = (address)calloc(n, 1))
CALL(cuGetErrorString, (int e, char **text), *text = "words of the driver")

CALL(cuDeviceGetAttribute, (int *is, int which, int device),
     // The major and minor numbers of the compute capability.
     long capability = value("capability", 90); *is = which == 75 ? capability / 10 : which == 76 ? capability % 10 : 0)

CALL(nvrtcVersion, (int *major, int *minor), *major = value("nvrtc", 13), *minor = 0)
CALL(nvrtcCreateProgram, (void **made), *made = &something)
CALL(nvrtcCompileProgram, (void *program))
CALL(nvrtcGetProgramLogSize, (void *program, size_t *bytes), *bytes = sizeof "line 1\nline 2")
CALL(nvrtcGetProgramLog, (void *program, char *log), strcpy(log, "line 1\nline 2"))
CALL(nvrtcGetCUBINSize, (void *program, size_t *bytes), *bytes = 4)
CALL(nvrtcGetCUBIN, (void *program, char *cubin), memcpy(cubin, "code", 4))
CALL(nvrtcDestroyProgram, (void **program))

size_t cudnnGetVersion(void) { return value("cudnn", 92000); }
size_t cudnnGetCudartVersion(void) { return 13000; }
void cudnnGetLastErrorString(char *text, size_t room) { snprintf(text, room, "words of\ncuDNN"); }
CALL(cudnnCreate, (void **made), *made = &something)
CALL(cudnnDestroy, (void *handle))
CALL(cudnnSetStream, (void *handle, void *stream))
CALL(cudnnBackendCreateDescriptor, (int kind, void **made), *made = &something)
CALL(cudnnBackendDestroyDescriptor, (void *descriptor))
CALL(cudnnBackendFinalize, (void *descriptor))
CALL(cudnnBackendSetAttribute, (void *descriptor))
CALL(cudnnBackendExecute, (void *handle))
// One of each: an engine without notes and knobs, whose plan works in 1000 bytes.
CALL(cudnnBackendGetAttribute, (void *descriptor, int name, int type, int64_t room, int64_t *count, void *to),
     *count = name != 1303 && name != 302; if (room && type == 3) *(int64_t *)to = 1000)

size_t cublasLtGetVersion(void) { return 130000; }
size_t cublasLtGetCudartVersion(void) { return 13000; }
CALL(cublasLtCreate, (void **made), *made = &something)
CALL(cublasLtDestroy, (void *handle))
CALL(cublasLtMatmulDescCreate, (void **made), *made = &something)
CALL(cublasLtMatmulDescSetAttribute, (void *shape))
CALL(cublasLtMatmulDescDestroy, (void *shape))
CALL(cublasLtMatrixLayoutCreate, (void **made), *made = &something)
CALL(cublasLtMatrixLayoutDestroy, (void *layout))
CALL(cublasLtMatmulPreferenceCreate, (void **made), *made = &something)
CALL(cublasLtMatmulPreferenceSetAttribute, (void *wish))
CALL(cublasLtMatmulPreferenceDestroy, (void *wish))
CALL(cublasLtMatmulAlgoGetHeuristic,
     (void *h, void *s, void *a, void *b, void *c, void *d, void *wish, int most, char *result, int *count),
     memset(result, 0, 96); *count = 1)
CALL(cublasLtMatmul, (void *handle))
