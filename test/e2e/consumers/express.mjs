import express from 'express'
import { forge } from 'forge'
import { exercise, listenOn } from './exercise.cjs'

const app = express()
app.get('/own', (request, response) => response.send('own'))
await exercise({ forge, app, listen: listenOn(app) })
