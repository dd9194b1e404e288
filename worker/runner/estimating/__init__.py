"""An estimate job: what pruning would cost and gain, found by masks, layer times and single steps."""
