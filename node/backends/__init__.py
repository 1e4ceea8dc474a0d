"""The model servers a device already runs, behind one seam."""
