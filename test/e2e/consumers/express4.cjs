const express = require('express4')
const { forge } = require('forge')
const { exercise, listenOn } = require('./exercise.cjs')

const app = express()
app.use(express.json())
app.get('/own', (request, response) => response.send('own'))
void exercise({ forge, app, listen: listenOn(app) })
