"""How well photos are named: zero-shot accuracy, ranks, calibration, retrieval, probes, and the report of it all."""
