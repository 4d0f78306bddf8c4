"""PTQ1.61, live: whole channels kept precise, the honest bill, a whole model, search, preprocessing, your matrix."""

from quantization import shared

shared.page("ptq1-61")
