/* The frame of every driver function: the lock, the count of calls, the log. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>
#include "driver.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t progress = PTHREAD_COND_INITIALIZER;
static struct call *calls;
static FILE *log_file;
static bool forked;
__thread bool inside_host_function;

void take_lock(void) { pthread_mutex_lock(&lock); }
void release_lock(void) { pthread_mutex_unlock(&lock); }
void tell_progress(void) { pthread_cond_broadcast(&progress); }

/* As on hardware, a child of fork has no driver. */
static void forget_parent(void) {
  pthread_mutex_init(&lock, NULL);
  forked = initialised;
}

__attribute__((constructor)) static void watch_forks(void) {
  pthread_atfork(NULL, NULL, forget_parent);
}

/* A thread may have Python's lock here: whoever it waits for may need that to get on. */
void wait_for_progress(void) {
  int (*has)(void) = dlsym(RTLD_DEFAULT, "PyGILState_Check");
  void *(*save)(void) = dlsym(RTLD_DEFAULT, "PyEval_SaveThread");
  void (*restore)(void *) = dlsym(RTLD_DEFAULT, "PyEval_RestoreThread");
  bool python = has && save && restore && has();
  void *thread = python ? save() : NULL;
  pthread_cond_wait(&progress, &lock);
  if (python) { /* another thread may want our lock while it has Python's */
    release_lock();
    restore(thread);
    take_lock();
  }
}

bool python_lives(void) {
  int (*initialised)(void) = dlsym(RTLD_DEFAULT, "Py_IsInitialized");
  return !initialised || initialised();
}

/* Whose function it is nobody knows, and Python's own would crash now. */
bool begin_callback(void) {
  if (!python_lives()) return false;
  release_lock();
  return true;
}

bool python_run(const char *text) {
  int (*ensure)(void) = dlsym(RTLD_DEFAULT, "PyGILState_Ensure");
  void (*release)(int) = dlsym(RTLD_DEFAULT, "PyGILState_Release");
  int (*run)(const char *) = dlsym(RTLD_DEFAULT, "PyRun_SimpleString");
  if (!ensure || !release || !run || !begin_callback()) return false;
  int state = ensure();
  bool done = run(text) == 0;
  release(state);
  take_lock();
  return done;
}

static void open_log(void) {
  static bool tried;
  const char *path = tried ? NULL : option("SOFTGPU_LOG");
  tried = true;
  if (path) log_file = fopen(path, "a");
  if (log_file) setvbuf(log_file, NULL, _IOLBF, 0);
}

void log_line(const char *format, ...) {
  if (!log_file) return;
  va_list arguments;
  va_start(arguments, format);
  vfprintf(log_file, format, arguments);
  va_end(arguments);
  fputc('\n', log_file);
}

struct guard enter(struct call *call) {
  take_lock();
  if (!call->count++) {
    call->next = calls;
    calls = call;
  }
  open_log();
  log_line("%s", call->name);
  if (inside_host_function) return (struct guard){CUDA_ERROR_NOT_PERMITTED};
  if (forked) return (struct guard){CUDA_ERROR_NOT_INITIALIZED};
  bool early = !strcmp(call->name, "cuInit") || !strcmp(call->name, "cuDriverGetVersion");
  return (struct guard){initialised || early ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED};
}

void leave(struct guard *guard) {
  (void)guard;
  run_ends();
  release_lock();
}

CUresult not_implemented(const char *name) {
  take_lock();
  open_log();
  log_line("%s: not implemented", name);
  release_lock();
  if (flag("SOFTGPU_STRICT")) {
    fprintf(stderr, "softgpu: %s is not implemented\n", name);
    abort();
  }
  report("%s is not implemented", name);
  return CUDA_ERROR_NOT_SUPPORTED;
}

/* Whether a symbol is a version of a function: cuMemAlloc_v2 is one of cuMemAlloc. */
static bool is_version_of(const char *symbol, const char *name) {
  size_t length = strlen(name);
  if (strncmp(symbol, name, length)) return false;
  const char *rest = symbol + length;
  return !*rest || (rest[0] == '_' && rest[1] == 'v' &&
                    strspn(rest + 2, "0123456789") == strlen(rest + 2));
}

unsigned long long softgpu_count(const char *name) {
  unsigned long long count = 0;
  take_lock();
  for (struct call *call = calls; call; call = call->next)
    if (is_version_of(call->name, name)) count += call->count;
  release_lock();
  return count;
}
