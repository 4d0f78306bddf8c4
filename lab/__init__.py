"""paperlab: a lab of 24 research papers, each with a method to import, a notebook, a live page and measured claims.

>>> import lab
>>> lab.__version__
'0.1.0'
"""

__version__ = "0.1.0"
