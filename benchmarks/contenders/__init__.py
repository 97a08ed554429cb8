"""The contenders, each in the way its users write it: ``train(work)`` makes ``work.updates`` updates.

They time nothing themselves: the worker hears of each update from the optimizer (from Batchscope by its observer).
"""
