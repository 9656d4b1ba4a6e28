/* PTX as a driver sees it before anybody translates it: its version, its target. */
#include <stdio.h>
#include "driver.h"

static const struct {
  int release, major, minor; /* a release of CUDA, and the newest PTX that its driver takes */
} PTX_OF[] = {{11080, 7, 8}, {12000, 8, 0}, {12010, 8, 1}, {12020, 8, 2},
              {12030, 8, 3}, {12040, 8, 4}, {12050, 8, 5}, {12060, 8, 5},
              {12070, 8, 6}, {12080, 8, 7}, {12090, 8, 8}, {13000, 9, 0}};

static int newest_ptx(void) { /* 10 * major + minor */
  if (options.driver > 13000) /* since then their numbers go together */
    return 10 * (options.driver / 1000 - 4) + options.driver % 1000 / 10;
  size_t at = sizeof PTX_OF / sizeof *PTX_OF - 1;
  while (at && PTX_OF[at].release > options.driver) at--;
  return 10 * PTX_OF[at].major + PTX_OF[at].minor;
}

/* A directive at the start of a line that is no comment. */
static const char *directive(const char *text, const char *name) {
  for (const char *line = text; line; line = strchr(line, '\n')) {
    line += strspn(line, " \t\r\n");
    if (!strncmp(line, name, strlen(name))) return line + strlen(name);
  }
  return NULL;
}

static bool target_fits(const char *target) {
  char suffix = 0;
  int capability = 0;
  if (!target || sscanf(target, " sm_%d%c", &capability, &suffix) < 1) return false;
  if (suffix == 'a') return capability == options.capability;
  if (suffix == 'f')
    return capability / 10 == options.capability / 10 && capability <= options.capability;
  return capability <= options.capability;
}

CUresult check_code(const char *code, char *why, size_t room) {
  uint32_t magic;
  memcpy(&magic, code, sizeof magic);
  if (magic == 0x464c457f || magic == 0xba55ed50 || magic == 0x466243b1) {
    snprintf(why, room,
             "the software GPU runs PTX and no machine code (a cubin or fatbin was given)");
    return CUDA_ERROR_NO_BINARY_FOR_GPU;
  }
  const char *version = directive(code, ".version"), *target = directive(code, ".target");
  int major, minor, newest = newest_ptx();
  if (!version || !target || sscanf(version, " %d.%d", &major, &minor) != 2) {
    snprintf(why, room, "the code is no PTX: it has no .version or no .target");
    return CUDA_ERROR_INVALID_PTX;
  }
  if (10 * major + minor > newest) {
    snprintf(why, room, "PTX .version %d.%d; a driver of CUDA %d.%d takes up to %d.%d", major,
             minor, options.driver / 1000, options.driver % 1000 / 10, newest / 10,
             newest % 10);
    return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
  }
  if (!target_fits(target)) {
    snprintf(why, room,
             "PTX .target%.12s does not run on a device of compute capability %d.%d", target,
             options.capability / 10, options.capability % 10);
    return CUDA_ERROR_INVALID_PTX; /* the driver's ptxas: SM version of .target is higher */
  }
  return CUDA_SUCCESS;
}
