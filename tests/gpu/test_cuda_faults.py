from tests.gpu.shared import shared

globals().update(shared("tests.test_cuda_faults"))
