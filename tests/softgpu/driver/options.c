/* Options: environment variables, or what softgpu_option said in their place; and cuInit. */
#include <stdio.h>
#include "driver.h"

struct options options;
bool initialised;

static struct override {
  const char *name;
  char *value;
  struct override *next;
} *overrides;

void softgpu_option(const char *name, const char *value) {
  struct override *override = malloc(sizeof *override);
  *override = (struct override){strdup(name), value ? strdup(value) : NULL, overrides};
  overrides = override; /* the newest of a name counts */
}

const char *option(const char *name) {
  for (struct override *override = overrides; override; override = override->next)
    if (!strcmp(override->name, name)) return override->value;
  const char *value = getenv(name);
  return value && *value ? value : NULL;
}

bool flag(const char *name) {
  const char *value = option(name);
  return value && strcmp(value, "0");
}

static uint64_t number(const char *name, uint64_t otherwise) {
  const char *value = option(name);
  return value ? strtoull(value, NULL, 10) : otherwise;
}

static void read_options(void) {
  uint64_t devices = number("SOFTGPU_DEVICES", 1);
  options.driver = (int)number("SOFTGPU_DRIVER", CUDA_VERSION);
  options.capability = (int)number("SOFTGPU_CC", 90);
  options.devices = devices > MOST_DEVICES ? MOST_DEVICES : (int)devices;
  options.memory = number("SOFTGPU_MEMORY", 4ull << 30);
  options.window = number("SOFTGPU_WINDOW", 64ull << 30);
  options.recycle = flag("SOFTGPU_RECYCLE");
  options.skip = flag("SOFTGPU_SKIP");
  options.eager = flag("SOFTGPU_EAGER");
  options.blocking = flag("CUDA_LAUNCH_BLOCKING");
}

CUresult CUDAAPI cuInit(unsigned int flags) {
  ENTER;
  if (flags) return CUDA_ERROR_INVALID_VALUE;
  if (initialised) return CUDA_SUCCESS;
  read_options();
  if (!options.devices) return CUDA_ERROR_NO_DEVICE;
  if (!map_window()) {
    report("the system has no addresses left for the device's memory");
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  initialised = true;
  return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDriverGetVersion(int *version) {
  ENTER;
  if (!version) return CUDA_ERROR_INVALID_VALUE;
  *version = initialised ? options.driver : (int)number("SOFTGPU_DRIVER", CUDA_VERSION);
  return CUDA_SUCCESS;
}
