"""Dense neural networks on the CPU, at the speed of the hardware."""
