/* The thread state of CPython 3.15: as 3.14, but a frame chain ends in a frame of the thread. */

#define BOTTOM_OF_THREAD(ts) ((ts)->base_frame)

#include "cpython314.h"
