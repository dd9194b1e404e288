"""/v1/datasets: uploaded images."""
