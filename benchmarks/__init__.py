"""Measurements: of ours alone, and side by side. Figures are ratios in one run wherever machines differ."""
