"""What people see: pages, in which everything can be looked at, and from which it is steered.

`dashboard` the routes, and what stands once around every page
`visit`     one request for a page: who asks, what the servicers answer, how it is shown
`calls`     the servicers' methods, called in this process by the rights of whoever asks
`guard`     which hosts and which sites may ask, and the headers of every answer
`signin`    who asks, by a cookie that they got for a token
`frame`     what stands around all of them: base path, which installation, whether anything may be changed
`kept`      what pages remember from one visit to the next
`render`    templates, and what they need: times, spans, words
`live`      hints of what has changed, to browsers that stay
`act`       everything that changes something: a question first, then the change
`payloads`  what a task carries, as it can be shown
`forms`     what a form has sent
`load`      what is due and what has run, by stretches of time
`results`   what became of the last tasks of a schedule or a processor
`expected`  when a task that runs will have ended

Every other module is one page: it asks, and renders a template of its own name. A page knows no store: it shows what
the servicers answer, which is what gRPC and the JSON API answer, too.
"""
