from tests.gpu.shared import shared

globals().update(shared("tests.test_device_functions"))
